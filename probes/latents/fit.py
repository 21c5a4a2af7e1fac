"""Fitting a top-k SAE on the states of one site, streamed: no activation is stored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from probes.latents.autoencoder import OURS, SparseAutoencoder
from probes.latents.config import OF_D_MODEL, SITES
from probes.latents.folders import folder_destination
from probes.latents.quality import Spectrum, quality
from probes.latents.training import Recipe, Trained, initial
from workbench.corpus import Corpus, batches, schedule
from workbench.errors import ModelError, PromptError, SettingError, UnsupportedError
from workbench.fitted_model import identity
from workbench.fitting import Fit, FitPlan, Run, versions
from workbench.models.aliases import to_hook
from workbench.models.protocol import Model
from workbench.models.sites import Site, expand_sites

__all__ = ["SparseAutoencoderFit"]

FORMAT = "6.0.0"  # of SAELens, whose fields cfg.json has


@dataclass(frozen=True)
class SparseAutoencoderFit(Fit[SparseAutoencoder]):
    """Fits a top-k SAE, x^ = topk((x - b_dec) W_enc + b_enc) W_dec + b_dec, after Gao et al. 2024.

    The loss of a step is the mean over its tokens of |x - x^|^2, as a share of the states' variance, and
    1/32 of the share of what is left that d / 2 of the dead latents would leave (AuxK), those that no
    token of the last `dead_after` activated. The decoder's rows keep norm 1, the rate of Adam falls to 0
    over the last fifth. States are streamed: a step takes whole prompts, which a seed shuffles, so that
    its tokens are not shuffled one by one as with a store of activations.

    Source: Gao, Dupre la Tour, Tillman, Goh, Troll, Radford, Sutskever, Leike and Wu 2024, "Scaling and
    evaluating sparse autoencoders", arXiv 2406.04093.

    Attributes:
        layer: of the site; 0 is the embedding, and the state after block l is resid_post at l.
        site: resid_pre, resid_mid, resid_post, attn_out, mlp_out, mlp_act, or z (all heads' outputs).
        latents: how many there are.
        k: the most latents of one token.
        steps: optimiser steps.
        tokens: the tokens of a step, to the next whole prompt; at most the corpus once.
        rate: learning rate; none for 2e-4 (16384 / latents)^.5, the authors'.
        dead_after: tokens after which an inactive latent counts as dead.
        skip_first: positions that are left out at the start of each prompt: attention sinks.
        held_out: share of the distinct prompts that is kept apart, to report figures on.
        length: tokens of a piece of a text file.
        batch_tokens: the most tokens in a forward pass, padding included.
        seed: of the initial directions, the order of the prompts and the random dictionary.

    >>> sae = SparseAutoencoderFit(layer=3)(model, ["The capital of France is"])  # doctest: +SKIP
    """

    layer: int
    site: str = "resid_post"
    latents: int = 1024
    k: int = 32
    steps: int = 1000
    tokens: int = 2048
    rate: float | None = None
    dead_after: int = 100_000
    skip_first: int = 1
    held_out: float = 0.1
    length: int = 128
    batch_tokens: int = 4096
    seed: int = 0

    name: ClassVar[str] = "sae"
    title: ClassVar[str] = "Sparse autoencoder"

    def __post_init__(self) -> None:
        self._require(
            layer=(0, 10**6), latents=(1, 10**9), k=(1, self.latents), steps=(1, 10**9),
            tokens=(1, 10**12), dead_after=(0, 10**15), skip_first=(0, 10**9), length=(1, 10**9),
            batch_tokens=(1, 10**9), held_out=(0.0, 0.9), seed=(0, 2**63 - 1),
        )  # fmt: skip
        if self.rate is not None:
            self._require(rate=(1e-12, 1e3))
        if self.site not in SITES:
            raise SettingError(
                f"{self.name}: site is {self.site!r}: expected one of {', '.join(SITES)}"
            )

    @override
    def prepare(self, model: Model, corpus: Corpus) -> None:
        if len(model.stacks) > 1:
            raise UnsupportedError(
                f"{self.name}: {model.name} has two stacks: expected a model of one"
            )
        expand_sites([self._site], model.n_layers)
        fitted, held = corpus.split(self.held_out)
        self._require_tokens(corpus, "prompts")
        self._require_tokens(fitted, "prompts to fit on")
        self._require_tokens(held, "prompts held out")

    def _require_tokens(self, corpus: Corpus, called: str) -> None:
        if len(corpus) and all(len(prompt) <= self.skip_first for prompt in corpus.prompts):
            raise PromptError(
                f"{self.name}: skip_first={self.skip_first} leaves none of {len(corpus)} {called} a token"
            )

    @property
    def _site(self) -> Site:
        return Site(self.site, self.layer)

    @override
    def plan(self, model: Model, corpus: Corpus) -> FitPlan:
        fitted, held = self._split(model, corpus)
        width = self._width(model, fitted)
        size = 4 * (self.latents * (2 * width + 1) + width)
        work = f"{self.steps} steps, a forward pass to layer {self.layer} a token"
        return FitPlan(len(fitted), fitted.tokens, len(held), self.total(fitted), work, size)

    def _width(self, model: Model, corpus: Corpus) -> int:
        """Of a state at the site; a short pass tells those that are not as wide as the stream."""
        if self.site in OF_D_MODEL:
            return model.d_model
        prompt = min(corpus.prompts, key=len)
        return model.capture(model.batch([prompt]), [self._site])[self._site].flatten(1).shape[1]

    @override
    def total(self, corpus: Corpus) -> int:
        lengths = [len(prompt) for prompt in corpus.prompts]
        return sum(sum(lengths[i] for i in step) for step in self._schedule(lengths))

    def _schedule(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        return schedule(lengths, self.steps, self.tokens, self.seed)

    @override
    def fitted(self, run: Run) -> SparseAutoencoder:
        return self._made(run, self._trained(run))

    def _trained(self, run: Run) -> Trained:
        lengths = [len(prompt) for prompt in run.corpus.prompts]
        trained = Trained(self._recipe, run.resumed() or self._initial(run), run.model.device)
        for number, step in enumerate(self._schedule(lengths)):
            tokens = sum(lengths[i] for i in step)
            if number < trained.done:
                run.skip(tokens)
                continue
            run.stop_if_asked(trained.kept)
            self._step(run, trained, step)
            run.advance(tokens, trained.kept)
        return trained

    def _step(self, run: Run, trained: Trained, step: Sequence[int]) -> None:
        """One step of the optimiser; where `skip_first` leaves no state, none, though it counts."""
        counted = sum(max(0, len(run.corpus.prompts[i]) - self.skip_first) for i in step)
        if not counted:
            trained.done += 1
            return
        for states in self._states(run.model, run.corpus, step):
            trained.add(states, 1 / counted)
        trained.step()

    @property
    def _recipe(self) -> Recipe:
        rate = 2e-4 * (2**14 / self.latents) ** 0.5 if self.rate is None else self.rate
        return Recipe(self.k, self.steps, rate, self.dead_after)

    def _initial(self, run: Run) -> dict[str, Tensor]:
        lengths = [len(prompt) for prompt in run.corpus.prompts]
        first = next(self._schedule(lengths))
        states = torch.cat(list(self._states(run.model, run.corpus, first)))
        if not (len(states) > 1 and states.var(0).sum() > 0):
            raise ModelError(
                f"{self.name}: {self._site} does not vary over the first step's tokens"
            )
        return initial(states, self.latents, self.seed)

    def _states(self, model: Model, corpus: Corpus, chosen: Sequence[int]) -> Iterator[Tensor]:
        """[N, d] states of some prompts, a batch at a time, float32 at least.

        Raises:
            ModelError: some are not finite.
        """
        lengths = [len(prompt) for prompt in corpus.prompts]
        for indices in batches(lengths, chosen, self.batch_tokens):
            caught = model.capture(model.batch([corpus.prompts[i] for i in indices]), [self._site])
            states = caught[self._site][caught.places.position >= self.skip_first].flatten(1)
            if not states.isfinite().all():
                raise ModelError(f"{self._site}: states that are not finite; try float32")
            yield states.to(torch.promote_types(states.dtype, torch.float32))

    def _made(self, run: Run, trained: Trained) -> SparseAutoencoder:
        """What was trained, with its figures on the part held out."""
        tensors = {name: one.float().cpu().contiguous() for name, one in trained.folded().items()}
        sae = SparseAutoencoder(self._cfg(run, tensors), tensors)
        if not len(run.held):
            return sae
        spectrum = Spectrum(*trained.spectrum())
        states = self._states(run.model, run.held, range(len(run.held)))
        found = quality(sae, states, spectrum, self.k, self.seed)
        return SparseAutoencoder(self._cfg(run, tensors, held_out=found), tensors)

    def _cfg(self, run: Run, tensors: dict[str, Tensor], **more: Any) -> dict[str, Any]:
        """What the folder's cfg.json says; fields of SAELens 6, and what was done under our name."""
        hook = to_hook(self.site, self.layer)
        made = {
            "model": identity(run.model),
            "settings": {"fit": type(self).__name__, **self.settings()},
            "corpus": dict(run.said),
            "versions": versions(),
            **more,
        }
        return {
            "architecture": "topk",
            "d_in": len(tensors["W_enc"]),
            "d_sae": self.latents,
            "k": self.k,
            "rescale_acts_by_decoder_norm": False,
            "dtype": "float32",
            "device": "cpu",
            "apply_b_dec_to_input": True,
            "normalize_activations": "none",
            "reshape_activations": "hook_z" if self.site == "z" else "none",
            "metadata": {
                "sae_lens_version": FORMAT,
                "model_name": run.model.name,
                "hook_name": hook,
                "prepend_bos": bool(run.model.tokens.opening),
                "context_size": max(map(len, run.corpus.prompts)),
                "seqpos_slice": [self.skip_first, None],
                OURS: made,
            },
        }

    @override
    @classmethod
    def destination(cls, path: Path) -> Path:
        return folder_destination(path)
