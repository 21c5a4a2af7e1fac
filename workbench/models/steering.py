"""Vectors added to a site in every pass of one view of a model, and of no other: nothing is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from workbench.errors import SettingError, UnsupportedError
from workbench.models.anatomy import Anatomy
from workbench.models.edits import Edit
from workbench.models.fingerprint import hash_text
from workbench.models.hooks import Attachable, Point, Tap, skipped
from workbench.models.positions import Positions
from workbench.models.sites import Site, SiteRequest, expand_sites, site_of

__all__ = ["STEERABLE", "Steer", "said_of_steering", "steering_taps"]

STEERABLE = ("resid_post", "mlp_out", "mlp_act", "z")


@dataclass(frozen=True)
class Steer:
    """Add strength x vector to a site, at every position.

    Attributes:
        site: (name, layer), or transformer-lens' name of its hook.
        vector: in the shape of one position's value: [d]; [heads, d_head] of z.
        strength: what it is multiplied by; 0 changes nothing.
    """

    site: SiteRequest
    vector: Tensor
    strength: float = 1.0

    @property
    def target(self) -> Site:
        """The steered site."""
        return site_of(self.site)

    @property
    def step(self) -> Tensor:
        """What is added."""
        return self.strength * self.vector

    def edit(self, positions: Positions = "all") -> Edit:
        """The same as an edit of one pass, at some positions; on every engine."""
        return Edit.add(self.site, self.step, positions)


def steering_taps(
    anatomy: Anatomy, steers: Sequence[Steer], n_layers: int
) -> list[tuple[Attachable, Tap]]:
    """The taps that add the vectors.

    Nothing is added where the module is not run: a state that a pass restarts from holds what was added to
    it. What a block reads is that state itself, so it cannot be told whether it was steered before.

    Raises:
        UnsupportedError: a site that cannot be steered in every pass, or that the model lacks.
        SettingError: no such layer.
    """
    for steer in steers:
        expand_sites([steer.target], n_layers)
        if steer.target.name not in STEERABLE or steer.target == ("resid_post", 0):
            raise UnsupportedError(
                f"{steer.target} cannot be steered in every pass, since a restart would add to it twice: "
                f"expected {', '.join(STEERABLE)} of layers 1..{n_layers}, or an edit for each pass"
            )
    points = [anatomy.point(steer.target) for steer in steers]
    return [(point, _adding(point, steer)) for point, steer in zip(points, steers, strict=True)]


def _adding(point: Attachable, steer: Steer) -> Tap:
    def add(value: Tensor) -> Tensor | None:
        passed_over = isinstance(point, Point) and skipped(point.module)
        if not steer.strength or passed_over:
            return None  # the very same numbers
        width = value.shape[2:]
        if steer.vector.shape != width:
            raise SettingError(
                f"a vector of shape {tuple(steer.vector.shape)} to steer {steer.target}: expected "
                f"{tuple(width)}"
            )
        return value + steer.step.to(value)

    return add


def said_of_steering(steers: Sequence[Steer]) -> list[dict[str, Any]]:
    """What a result must say of the steering that it was measured under."""
    return [
        {
            "site": steer.target.name,
            "layer": steer.target.layer,
            "strength": steer.strength,
            "norm": float(torch.linalg.vector_norm(steer.vector.double())),
            "hash": hash_text(str(steer.vector.detach().double().cpu().flatten().tolist())),
        }
        for steer in steers
    ]
