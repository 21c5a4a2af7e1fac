"""Fitting a Jacobian lens: one backward pass an output direction serves every layer and position."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from lenses.translators.fitting import LensFit
from lenses.translators.jacobian import JacobianLens
from workbench.corpus import Corpus, batches
from workbench.errors import ModelError, PromptError, UnsupportedError
from workbench.fitting import FitPlan, Run
from workbench.models.protocol import Model
from workbench.models.tokens import EncodedPrompt

__all__ = ["JacobianFit", "summed_jacobians"]


@dataclass(frozen=True)
class JacobianFit(LensFit):
    """Fits a Jacobian lens by vector-Jacobian products, after Gurnee et al. 2026.

    J_l = mean over prompts of the mean over source positions t of the sum over targets t' >= t of
    d h_L,t' / d h_l,t, with h_L the state after the last block, before the final norm. Sources and
    targets are the positions that are not skipped.

    Rows of a batch repeat a prompt, each with a cotangent of its own direction; one backward pass
    then gives those directions for every layer and position, since a token's future alone depends on
    it.

    Attributes:
        skip_first: leading positions that are neither source nor target: attention sinks, whose
            states are unlike any other. The authors skip 16.
        skip_last: positions at the end that are neither; the last one has no next token.
        directions: output directions of one backward pass.
        held_out: share of the distinct prompts that is kept apart, to report KL on.
        length: tokens of a piece of a text file.
        batch_tokens: the most tokens in a pass, repeated rows and padding included.

    >>> lens = JacobianFit(skip_first=1)(model, ["The capital of France is", ...])  # doctest: +SKIP
    """

    skip_first: int = 16
    skip_last: int = 1
    directions: int = 8
    held_out: float = 0.1
    length: int = 128
    batch_tokens: int = 1024

    name: ClassVar[str] = JacobianLens.name
    title: ClassVar[str] = JacobianLens.title

    def __post_init__(self) -> None:
        self._require(
            skip_first=(0, 10**9), skip_last=(0, 10**9), directions=(1, 10**6), length=(1, 10**9),
            batch_tokens=(1, 10**9), held_out=(0.0, 0.9),
        )  # fmt: skip

    @override
    def prepare(self, model: Model, corpus: Corpus) -> None:
        """Refuse what is no decoder, and a prompt with no position left."""
        if not getattr(model, "causal", True) or len(getattr(model, "stacks", {})) > 1:
            raise UnsupportedError(
                f"jacobian_lens: {model.name} is no decoder alone: the sum over later positions needs "
                "a token that only later ones depend on"
            )
        for prompt in corpus.prompts:
            if len(prompt) <= self.skip_first + self.skip_last:
                raise PromptError(
                    f"jacobian_lens: prompt {prompt.text[:40]!r} has {len(prompt)} tokens, of which "
                    f"skip_first={self.skip_first} and skip_last={self.skip_last} leave none: lower "
                    "them, or give longer prompts"
                )

    @override
    def plan(self, model: Model, corpus: Corpus) -> FitPlan:
        fitted, held = self._split(model, corpus)
        passes = fitted.tokens * (model.d_model + self.directions)
        work = f"{model.d_model} backward passes a prompt, {self.directions} at a time"
        size = model.n_layers * model.d_model**2 * 4
        return FitPlan(len(fitted), fitted.tokens, len(held), passes, work, size)

    @override
    def total(self, corpus: Corpus) -> int:
        return corpus.tokens

    @override
    def fitted(self, run: Run) -> JacobianLens:
        model, prompts = run.model, run.corpus.prompts
        lengths = [len(prompt) for prompt in prompts]
        sum_ = _Sum.begin(run)
        skipped = sum_.prompts
        for chosen in batches(lengths, range(len(lengths)), self._limit):
            tokens = sum(lengths[i] for i in chosen)
            if skipped:
                skipped -= len(chosen)
                run.skip(tokens)
                continue
            run.stop_if_asked(sum_.kept)
            found = summed_jacobians(
                model,
                [prompts[i] for i in chosen],
                range(model.n_layers),
                directions=self.directions,
                skip=(self.skip_first, self.skip_last),
            )
            _require_finite(found)
            sum_.add(found, len(chosen))
            run.advance(tokens, sum_.kept)
        mean = (sum_.total / len(prompts)).to(torch.promote_types(model.dtype, torch.float32))
        return JacobianLens({"weight": mean}, self._made(run))

    @property
    def _limit(self) -> int:
        """Tokens of a batch before its rows are repeated."""
        return max(1, self.batch_tokens // self.directions)


@dataclass
class _Sum:
    """The sum of the prompts' Jacobians so far; in float64, so that rounding does not add up.

    Attributes:
        total: [L, d, d].
        prompts: how many are in it.
    """

    total: Tensor
    prompts: int

    @classmethod
    def begin(cls, run: Run) -> _Sum:
        """From nothing, or from the run's checkpoint."""
        if held := run.resumed():
            return cls(held["sum"], int(held["prompts"]))
        d = run.model.d_model
        return cls(torch.zeros(run.model.n_layers, d, d, dtype=torch.float64), 0)

    def add(self, found: Tensor, prompts: int) -> None:
        """Add the sum over some more prompts."""
        self.total += found
        self.prompts += prompts

    def kept(self) -> dict[str, Tensor]:
        """As tensors by name."""
        return {"sum": self.total, "prompts": torch.tensor(self.prompts)}


def summed_jacobians(
    model: Model,
    prompts: Sequence[EncodedPrompt],
    layers: Sequence[int],
    *,
    directions: int,
    skip: tuple[int, int],
) -> Tensor:
    """The sum over prompts of each one's J_l (see `JacobianFit`).

    Args:
        prompts: run in one batch, each in `directions` rows.
        layers: l of each J_l.
        directions: output directions of one backward pass.
        skip: how many positions at the beginning and at the end are left out.

    Returns:
        [layers, d, d] in float64, on the CPU; row i is output direction i.
    """
    d, count = model.d_model, len(prompts)
    width = min(directions, d)
    wide = torch.promote_types(model.dtype, torch.float32)
    batch = model.batch([prompt for prompt in prompts for _ in range(width)])
    inside = _inside([len(prompt) for prompt in prompts], skip).to(model.device, wide)
    shares = inside / inside.sum(1, keepdim=True)  # of each source, whose mean is taken
    found = torch.zeros(len(layers), d, d, dtype=torch.float64)
    sites = [("resid_post", layer) for layer in layers]
    with model.pullback(batch, ("resid_post", model.n_layers), sites) as pull:
        for rows in _spans(d, width):
            cotangent = inside.new_zeros(count, width, inside.shape[1], d)
            along = torch.arange(len(rows), device=model.device)
            cotangent[:, along, :, along + rows.start] = inside  # at every target at once
            for layer, slope in enumerate(pull(cotangent.flatten(0, 1))):
                by_prompt = slope.to(wide).reshape(cotangent.shape)[:, : len(rows)]
                mean = torch.einsum("pktd,pt->kd", by_prompt, shares.to(slope.device))
                found[layer, rows.start : rows.stop] = mean.double().cpu()
    return found


def _inside(lengths: Sequence[int], skip: tuple[int, int]) -> Tensor:
    """[prompt, position] whether a position is not skipped."""
    position = torch.arange(max(lengths))
    ends = torch.tensor(lengths)[:, None] - skip[1]
    return (position >= skip[0]) & (position < ends)


def _spans(length: int, step: int) -> Iterator[range]:
    return (range(start, min(start + step, length)) for start in range(0, length, step))


def _require_finite(found: Tensor) -> None:
    if not found.isfinite().all():
        bad = (~found.flatten(1).isfinite().all(1)).nonzero()[0]
        raise ModelError(
            f"jacobian_lens: the Jacobian of layer {int(bad)} is not finite: the weights or the dtype "
            "overflow; try float32"
        )
