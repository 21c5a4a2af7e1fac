"""Causal tracing: which cells of a prompt carry its answer, by putting them into another run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor

from probes.bibliography import MENG
from probes.causal.contrast import Contrast, alike
from probes.causal.corruption import (
    checked_noise,
    counterfactual,
    cut_words,
    first_difference,
    settled_corruption,
    subject_std,
    whole_subject,
)
from probes.causal.effects import Algorithm, Direction, Effects, algorithm_of, effects, planned
from probes.causal.metrics import UNITS, Metric, require_goal, settled_metric
from probes.causal.pace import within
from probes.settings import one_of, sites_of
from probes.tracing.grid import SITES, WINDOWED, grid
from probes.tracing.measured import DIMS, Scored, unit_of, variables
from probes.tracing.viewed import Viewed
from workbench.errors import SettingError
from workbench.instrument import Citation, Measured, Named
from workbench.models.batch import Batch, Places
from workbench.models.positions import (
    Positions,
    checked_positions,
    require_positions,
    resolve_positions,
)
from workbench.models.protocol import Model
from workbench.models.tokens import EncodedPrompt
from workbench.prompts import Prompt

__all__ = ["CausalTrace"]

WHO = "causal_trace"
WINDOW = 10  # the reference's, of 48 blocks; a model of few has half of its own
DEEP = 20
TOKENS = 512  # of prompts that are traced together, all samples counted


@dataclass(frozen=True)
class CausalTrace(Viewed):
    """Put one cell (token, layer) of one run into another, and score what comes out.

    Three runs: the clean prompt; a corrupted one, with noise on the subject's token embeddings or
    another text in its place; and for each cell the run in which that cell has the other run's value.
    Denoising puts clean values into the corrupted run and asks which cells are sufficient; noising
    puts corrupted values into the clean run and asks which are necessary. They differ, and later
    components repair what is put in earlier. With scores of the runs:

        effect = patched - corrupted (denoising), patched - clean (noising);
        total = clean - corrupted; normalised = (patched - corrupted) / total.

    All cells of a prompt are measured exactly by one sweep, for a fraction of a run each (see
    `probes.causal.sweep`).

    Source: Meng, Bau, Andonian and Belinkov 2022, arXiv 2202.05262; Zhang and Nanda 2023, arXiv
    2309.16042 (token replacement, metrics, both directions).

    Attributes:
        sites: some of resid_post (the state after a block), mlp_out and attn_out (what the blocks of a
            window add), severed_mlp and severed_attn (the state, with what later MLPs or attention
            add at its token kept as it was).
        layers: 0..L, or "all" for 1..L; windows are centred on them. Layer 0, the embedding, has
            states alone.
        positions: tokens whose cells are measured.
        direction: "denoising" or "noising".
        corruption: "noise", "replace" (by each prompt's corrupted text), or "auto": replace where
            every prompt has one, else noise.
        metric: "probability", "logprob", "logit_difference", "kl", or "auto": logit_difference where
            every prompt has a foil, else probability, the reference's.
        window: blocks restored together at mlp_out and attn_out, [l - 5, l + 4] for 10 as in the
            reference's code; None for 10, or half the blocks of a model with fewer than 20.
        noise: standard deviations of the noise, in units of noise_std.
        noise_std: None for the standard deviation of the subjects' embeddings over all prompts.
        samples: how many draws of noise; the same for every cell.
        seed: of the noise.
        algorithm: "wave", "restart", "naive" (a whole run for each cell), or "auto" for the cheapest
            that is exact on the model. Of half-precision models restart and naive score logit
            differences by the model's rounded logits, the wave by its states, unrounded.

    Result axes: place, site, layer, sample (1 for replacement). Variables: score (place, site, layer,
    sample) of the patched run; effect, stderr (over samples; NaN of one) and normalised (place, site,
    layer; NaN where the total effect is about 0: below .001 in probability or KL, .01 in logprob or
    logit difference); and of each prompt, at all its places: clean, corrupted (place, sample), total,
    target_id and foil_id (-1 for none or several tokens), top_id (the clean run's most probable token),
    correct (1 where that is the target's first; -1 unknown), role (index into
    `probes.causal.roles.ROLES`; -1 without a subject), group (the same number in prompts of one group or
    subject), block_tokens (tokens that passed through a block; this prompt's share of those
    that were traced with it).

    >>> CausalTrace()(model, facts).plot()  # doctest: +SKIP
    """

    sites: str | Sequence[str] = ("resid_post", "mlp_out", "attn_out")
    layers: str | int | Sequence[int] = "all"
    positions: Positions = "all"
    direction: Direction = "denoising"
    corruption: Literal["auto", "noise", "replace"] = "auto"
    metric: Literal["auto", "probability", "logprob", "logit_difference", "kl"] = "auto"
    window: int | None = None
    noise: float = 3.0
    noise_std: float | None = None
    samples: int = 10
    seed: int = 0
    algorithm: Literal["auto", "wave", "restart", "naive"] = "auto"

    name: ClassVar[str] = WHO
    title: ClassVar[str] = "Causal trace"
    long_targets: ClassVar[bool] = True
    costly: ClassVar[bool] = True
    most_prompts: ClassVar[int | None] = 8
    citation: ClassVar[Citation] = Citation(
        "Causal effects in {model} were traced by activation patching (Meng et al., 2022; {settings})",
        MENG,
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "sites", sites_of(WHO, self.sites, SITES))
        object.__setattr__(self, "positions", checked_positions(self.positions))
        if isinstance(self.layers, int):
            object.__setattr__(self, "layers", (self.layers,))
        elif self.layers != "all":
            object.__setattr__(self, "layers", tuple(self.layers))
        checked_noise(self.noise, self.samples, self.seed, WHO, self.noise_std)
        for field, known in CHOICES.items():
            one_of(WHO, field, getattr(self, field), known)

    def settled(self, model: Model, prompts: Iterable[Prompt]) -> Self:
        """Fill in what is left open: corruption, metric, window, and the noise of these subjects."""
        window = self.window
        if window is None:
            few = model.n_layers < DEEP
            window = max(1, model.n_layers // 2) if few else WINDOW
        known = replace(self, window=window, algorithm=self._algorithm(model))
        open_noise = self.noise_std is None and self.corruption != "replace"
        if "auto" not in (self.corruption, self.metric) and not open_noise:
            return self if known == self else known
        every = list(prompts)
        return replace(known, **self._of_set(model, every))

    def _of_set(self, model: Model, prompts: Sequence[Prompt]) -> dict[str, Any]:
        """The settings that are taken from the whole set."""
        corruption = settled_corruption(self.corruption, prompts, WHO)
        found = {"corruption": corruption, "metric": settled_metric(self.metric, prompts)}
        if corruption == "noise" and self.noise_std is None:
            return {**found, "noise_std": subject_std(model, prompts)}
        return found

    def _algorithm(self, model: Model) -> Algorithm:
        cheapest = algorithm_of(model, [])
        if self.algorithm == "auto":
            return cheapest
        if self.algorithm == "wave" and cheapest != "wave":
            raise SettingError(
                f"{WHO}: algorithm is 'wave': the {model.engine} engine has no single blocks; expected "
                "restart or naive, or load the model with engine='torch'"
            )
        return self.algorithm

    def prepare(self, model: Model) -> None:
        """Refuse models that are no causal decoders, and what they lack.

        Raises:
            UnsupportedError, SettingError, ModelError: it is; layers or a window it does not have.
        """
        algorithm_of(model, [])
        layers = self._layers(model)
        if bad := [one for one in layers if type(one) is not int or not 0 <= one <= model.n_layers]:
            raise SettingError(
                f"{WHO}: layer {bad[0]!r}: expected whole numbers, 0..{model.n_layers}, or all"
            )
        if not layers or len(set(layers)) < len(layers):
            raise SettingError(f"{WHO}: layers is {layers}: expected at least one, and each once")
        if layers == [0] and set(self.sites) <= set(WINDOWED):
            raise SettingError(
                f"{WHO}: layer 0, the embedding, has no {' or '.join(self.sites)}: expected one of 1.."
                f"{model.n_layers} among the layers, or resid_post among the sites"
            )
        window = self.window
        if window is not None and (type(window) is not int or not 1 <= window <= model.n_layers):
            raise SettingError(
                f"{WHO}: window is {window!r}: expected a whole number of blocks, 1..{model.n_layers}"
            )

    def accept(self, prompt: EncodedPrompt) -> None:
        """Refuse a prompt that cannot be corrupted or scored as is asked."""
        require_goal(prompt, self.metric, WHO)
        require_positions(self.positions, prompt, WHO)
        if self.corruption == "noise":
            whole_subject(prompt)

    def remarks_of(self, prompts: Sequence[EncodedPrompt]) -> Sequence[str]:
        """Where noise is on a part of a word."""
        return cut_words(prompts) if self.corruption == "noise" else ()

    def coords(self, model: Model) -> Mapping[str, Sequence[Any]]:
        """Sites, layers, and samples counted from 0."""
        return {
            "site": list(self.sites),
            "layer": self._layers(model),
            "sample": list(range(self._samples)),
        }

    def block_tokens(self, model: Model, prompts: Sequence[EncodedPrompt]) -> int:
        """The tokens that will pass through a block, exactly."""
        groups = alike(prompts, max(1, TOKENS // self._samples))
        return sum(self._planned(model, [prompts[i] for i in indices]) for indices in groups)

    def _planned(self, model: Model, prompts: Sequence[EncodedPrompt]) -> int:
        tail = max(1, len(prompts[0].answer))
        assert self.window is not None
        cells = grid(
            self.sites, self._layers(model), self._columns(prompts), self.window, model.n_layers
        )
        same = (
            first_difference(prompt, counterfactual(model, prompt, WHO))
            if self.corruption == "replace"
            else prompt.subject[0]
            for prompt in prompts
        )
        return planned(
            cells,
            algorithm=self._algorithm(model),
            n_layers=model.n_layers,
            width=len(prompts[0]) + tail - 1,
            same=min(same),
            prompts=len(prompts),
            samples=self._samples,
            tail=tail,
        )

    def drive_paced(
        self, model: Model, batch: Batch, pace: Callable[[float], None]
    ) -> tuple[Places, Measured]:
        """Trace prompts of one length together."""
        groups = alike(batch.prompts, max(1, TOKENS // self._samples))
        traced: dict[int, dict[str, Tensor]] = {}
        for number, indices in enumerate(groups):
            prompts = [batch.prompts[i] for i in indices]
            own = within(pace, number / len(groups), 1 / len(groups))
            traced |= dict(zip(indices, self._traced(model, prompts, own), strict=True))
        parts = [traced[i] for i in range(len(batch))]
        return batch.places(self.positions), {
            name: Named(dims, torch.cat([part[name] for part in parts]), unit_of(name, self.metric))
            for name, dims in DIMS.items()
        }

    def traced(self, model: Model, prompt: Prompt | str, corrupted: Tensor) -> Effects:
        """The scores of one prompt's cells against any given corrupted states before block 1.

        Args:
            corrupted: [samples, width, d]; see `Engine.embedded`.

        Returns:
            Effects whose cells go site by site, layer by layer, token by token.
        """
        encoded = _encoded(model, prompt)
        it = replace(self, corruption="replace").settled(model, [encoded.prompt])
        it.prepare(model)
        require_goal(encoded, it.metric, WHO)
        contrast = Contrast.by_embeddings(model, encoded, corrupted)
        columns = resolve_positions(it.positions, encoded)
        return it._effects(model, contrast, columns, lambda _: None)

    def _traced(
        self, model: Model, prompts: Sequence[EncodedPrompt], pace: Callable[[float], None]
    ) -> list[dict[str, Tensor]]:
        """The variables of each prompt, with the axis place first."""
        where = [resolve_positions(self.positions, prompt) for prompt in prompts]
        columns = self._columns(prompts)
        contrast, layers = self._contrast(model, prompts), self._layers(model)
        found = self._effects(model, contrast, columns, pace)
        shape = (len(self.sites), len(layers), len(columns), len(prompts), contrast.samples)
        # [prompt, position, site, layer, sample]
        scores = found.patched.view(shape).permute(3, 2, 0, 1, 4).cpu()
        for i, site in enumerate(self.sites):
            if site in WINDOWED and 0 in layers:
                scores[:, :, i, layers.index(0)] = float("nan")
        return [
            variables(
                prompt,
                those,
                scores[i][[columns.index(column) for column in those]],
                Scored.of(found, i, self.metric, self.direction),
            )
            for i, (prompt, those) in enumerate(zip(prompts, where, strict=True))
        ]

    def _effects(
        self,
        model: Model,
        contrast: Contrast,
        columns: Sequence[int],
        pace: Callable[[float], None],
    ) -> Effects:
        assert self.window is not None
        cells = grid(self.sites, self._layers(model), columns, self.window, model.n_layers)
        return effects(
            model,
            contrast,
            cells,
            metric=self._metric,
            direction=self.direction,
            algorithm=None if self.algorithm == "auto" else self.algorithm,
            pace=pace,
        )

    def _contrast(self, model: Model, prompts: Sequence[EncodedPrompt]) -> Contrast:
        if self.corruption == "replace":
            return Contrast.by_text(model, prompts, WHO)
        assert self.noise_std is not None
        return Contrast.by_noise(
            model,
            prompts,
            std=self.noise * self.noise_std,
            samples=self.samples,
            seed=self.seed,
        )

    def _columns(self, prompts: Sequence[EncodedPrompt]) -> list[int]:
        """Every position that is measured in one of the prompts."""
        return sorted({i for prompt in prompts for i in resolve_positions(self.positions, prompt)})

    @property
    def _samples(self) -> int:
        return self.samples if self.corruption == "noise" else 1

    @property
    def _metric(self) -> Metric:
        assert self.metric != "auto"
        return self.metric

    def _layers(self, model: Model) -> list[int]:
        return list(range(1, model.n_layers + 1)) if self.layers == "all" else list(self.layers)  # type: ignore[arg-type]


CHOICES = {
    "direction": ("denoising", "noising"),
    "corruption": ("auto", "noise", "replace"),
    "metric": ("auto", *UNITS),
    "algorithm": ("auto", "wave", "restart", "naive"),
}


def _encoded(model: Model, prompt: Prompt | str) -> EncodedPrompt:
    given = Prompt(prompt) if isinstance(prompt, str) else prompt
    return model.encode(given, long_targets=True)
