"""Gradient x input and integrated gradients of a target's logit, at the embedding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from workbench.errors import SettingError
from workbench.models.batch import Batch, Places
from workbench.models.captures import Read
from workbench.models.positions import Positions
from workbench.models.protocol import Model

__all__ = ["Followed", "gradient_x_input", "integrated_gradients", "require_captum"]


@dataclass(frozen=True)
class Followed:
    """The number that is attributed: the target's logit, less the foil's where there is one.

    Attributes:
        model: the model.
        batch: padded on the right.
        at: where the target is predicted.
        states: [rows, width, d] the embedding of the batch, 0 on padding.
    """

    model: Model
    batch: Batch
    at: Positions
    states: Tensor

    @classmethod
    def of(cls, model: Model, batch: Batch, at: Positions) -> Followed:
        """Of the batch as it is; every prompt has a target."""
        found = model.capture(batch, [("resid_post", 0)])["resid_post", 0]
        empty = found.new_zeros(*batch.ids.shape, found.shape[-1])
        return cls(model, batch, at, batch.places().scatter(empty, found))

    def values(self, states: Tensor) -> Tensor:
        """[N] the number at each place of `at`, from these embeddings."""
        read = Read(["logits"], self.at)
        caught = self.model.read(self.batch, [read], start=(0, states))[0]
        return self._of(caught["logits", self.model.n_layers], caught.places)

    def gradient(self, states: Tensor) -> Tensor:
        """[rows, width, d] its gradient at these embeddings, 0 on padding."""

        def total(logits: Tensor, places: Places) -> Tensor:
            return self._of(logits, places).sum()

        found = self.model.grad(
            self.batch, total, [("resid_post", 0)], at=self.at, start=(0, states)
        )
        return found.places.scatter(torch.zeros_like(states), found["resid_post", 0])

    def _of(self, logits: Tensor, places: Places) -> Tensor:
        """[N] from logits [N, vocabulary]."""
        target, foil = (self.batch.targets(role)[places.row] for role in ("target", "foil"))
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        found = logits.gather(1, target[:, None])[:, 0]
        other = logits.gather(1, foil.clamp_min(0)[:, None])[:, 0]
        return torch.where(foil < 0, found, found - other)


def gradient_x_input(followed: Followed) -> Tensor:
    """[rows, width] the embedding of each token times the gradient there, summed over its width.

    Source: Shrikumar et al. 2017, arXiv 1605.01713.
    """
    dtype = torch.promote_types(followed.states.dtype, torch.float32)
    return (followed.gradient(followed.states).to(dtype) * followed.states.to(dtype)).sum(-1)


def integrated_gradients(followed: Followed, baseline: str, steps: int) -> tuple[Tensor, Tensor]:
    """The gradient's integral on the straight way from a baseline, by captum's Gauss-Legendre rule.

    Source: Sundararajan et al. 2017, arXiv 1703.01365.

    Args:
        baseline: "zero", or "mean": every token is the prompt's mean embedding.
        steps: points of the rule.

    Returns:
        [rows, width] attributions; [rows] how far their sum is from f(input) - f(baseline), which
        is the error of the rule.
    """
    captum: Any = require_captum()
    start = _baseline(followed, baseline)
    rule = captum.IntegratedGradients(followed.values)
    rule.gradient_func = lambda inputs, **_: (followed.gradient(inputs[0]),)
    found = rule.attribute(
        followed.states,
        baselines=start,
        n_steps=steps,
        method="gausslegendre",
        internal_batch_size=len(followed.batch),  # one step of the whole batch at a time
    )
    attributed = found.detach().to(torch.promote_types(found.dtype, torch.float32)).sum(-1)
    rows = followed.batch.places(followed.at).row
    change = followed.values(followed.states) - followed.values(start)
    whole = attributed.new_zeros(len(attributed)).index_add(0, rows, change)
    return attributed, attributed.sum(-1) - whole


def _baseline(followed: Followed, name: str) -> Tensor:
    states, inside = followed.states, followed.batch.mask[..., None].to(followed.states)
    if name == "zero":
        return torch.zeros_like(states)
    return states.sum(1, keepdim=True) / inside.sum(1, keepdim=True) * inside


def require_captum() -> Any:
    """Captum's attributions.

    Raises:
        SettingError: it is not installed.
    """
    try:
        import captum.attr
    except ImportError:
        raise SettingError(
            "input_attribution: integrated_gradients needs captum: install this package with its "
            "extra [attribution], or leave the method out"
        ) from None
    return captum.attr
