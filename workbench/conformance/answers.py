"""Hugging Face's answers to the suite's questions, each asked once, for all engines and paddings.

With each answer comes how far it moves when the stream is disturbed by a rounding's worth of noise,
from which tolerances are made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from workbench.conformance.oracle import Oracle
from workbench.conformance.tolerance import Tolerance, distance
from workbench.models.tokens import EncodedPrompt

__all__ = ["Answer", "Answers", "Site", "loss"]

Site = tuple[str, int]


@dataclass(frozen=True)
class Answer:
    """What Hugging Face gives.

    Attributes:
        values: [T, ...] for each prompt.
        moved: the largest change of a number when the stream is disturbed.
    """

    values: list[Tensor]
    moved: float

    @classmethod
    def of(cls, plain: Sequence[Tensor], disturbed: Sequence[Tensor]) -> Answer:
        """From the values with and without the disturbance."""
        pairs = zip(plain, disturbed, strict=True)
        return cls(list(plain), max(distance(one, other) for one, other in pairs))

    @property
    def joined(self) -> Tensor:
        """[N, ...], prompt by prompt."""
        return torch.cat(self.values)


def loss(logits: Tensor) -> Tensor:
    """Surprise at the middle of the vocabulary, summed over places: what is differentiated."""
    return -logits.log_softmax(-1)[..., logits.shape[-1] // 2].sum()


class Answers:
    """What Hugging Face gives for some prompts.

    Args:
        hf: a Hugging Face language model; it is left as it is.
        prompts: encoded prompts of unequal length, the longest first.
    """

    def __init__(self, hf: Any, prompts: Sequence[EncodedPrompt]) -> None:
        self.oracle = Oracle(hf, prompts[0].ids)
        self.prompts = tuple(prompts)
        self._known: dict[tuple[Any, ...], Answer] = {}

    @property
    def tolerance(self) -> Tolerance:
        """What rounding allows on this model."""
        return self.oracle.tolerance

    def _once(self, *question: Any, ask: Callable[[bool], list[Tensor]]) -> Answer:
        """The answer of `ask`, called without and with the disturbance the first time."""
        if question not in self._known:
            self._known[question] = Answer.of(ask(False), ask(True))
        return self._known[question]

    def values(self, site: Site) -> Answer:
        """The values of a site.

        Raises:
            LookupError: Hugging Face does not show this site.
        """

        def ask(disturbed: bool) -> list[Tensor]:
            found = [self.oracle.states(p.ids, disturbed=disturbed) for p in self.prompts]
            if site not in found[0]:
                raise LookupError(
                    f"Hugging Face shows no {site[0]}, layer {site[1]}, to compare with"
                )
            return [states[site] for states in found]

        return self._once("values", site, ask=ask)

    def noise(self, site: Site, seed: int = 0, size: float = 1.0) -> list[Tensor]:
        """Random numbers of the shape of a site's values and `size` times their size.

        None are put where the values are 0: a pattern has zeros for keys that its query does not see.
        """
        values = self.values(site).values
        scale = size * float(
            torch.cat([v.flatten() for v in values]).double().square().mean().sqrt()
        )
        generator = torch.Generator().manual_seed(seed)
        drawn = [torch.randn(v.shape, generator=generator).to(v) * scale for v in values]
        return [noise * (value != 0) for noise, value in zip(drawn, values, strict=True)]

    def edited(self, site: Site, seed: int, size: float) -> Answer:
        """The logits when that noise is added at a site."""

        def ask(disturbed: bool) -> list[Tensor]:
            extras = self.noise(site, seed, size)
            return [
                self._with_added(row, site, extra, disturbed).detach()
                for row, extra in enumerate(extras)
            ]

        return self._once("edited", site, seed, size, ask=ask)

    def _with_added(self, row: int, site: Site, extra: Tensor, disturbed: bool) -> Tensor:
        """[T, vocabulary]: the logits of one prompt with `extra` [T, ...] added at a site."""
        ids = self.prompts[row].ids
        added = self.oracle.noise(ids) if disturbed else {}
        added[site] = extra[None] + added.get(site, 0)
        return self.oracle.gradable_logits(torch.tensor([ids], device=extra.device), added)[0]

    def gradient(self, site: Site) -> Answer:
        """The gradient of the loss at each prompt's last position, by plain autograd."""

        def ask(disturbed: bool) -> list[Tensor]:
            shapes = self.values(site).values
            return [self._gradient(row, site, like, disturbed) for row, like in enumerate(shapes)]

        return self._once("gradient", site, ask=ask)

    def _gradient(self, row: int, site: Site, like: Tensor, disturbed: bool) -> Tensor:
        """[T, ...]: the gradient at zero of what is added, on one prompt alone."""
        zeros = torch.zeros_like(like).requires_grad_()
        with torch.enable_grad():
            value = loss(self._with_added(row, site, zeros, disturbed)[-1])
        return torch.autograd.grad(value, zeros)[0]

    def variants(self, site: Site, extra: Tensor) -> Answer:
        """The logits of the first prompt when each row of `extra` [rows, T, d] is added to it."""
        ids = self.prompts[0].ids
        rows = torch.tensor([ids], device=extra.device).expand(len(extra), -1)

        def ask(disturbed: bool) -> list[Tensor]:
            found = self.oracle.noise(ids) if disturbed else {}
            added = {at: one.expand(len(extra), -1, -1) for at, one in found.items()}
            added[site] = extra + added.get(site, 0)
            return list(self.oracle.logits(rows, added))

        return Answer.of(ask(False), ask(True))
