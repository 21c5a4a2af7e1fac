"""Interventions: what to put in the place of a site's value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from workbench.errors import UnsupportedError
from workbench.models.batch import Places
from workbench.models.positions import Positions
from workbench.models.sites import Site, SiteRequest, site_of

__all__ = ["Edit"]

Change = Callable[[Tensor, Places], Tensor]


@dataclass(frozen=True)
class Edit:
    """Replace a site's value at some positions during a pass.

    Attributes:
        site: (name, layer), or transformer-lens' name of its hook. Any canonical site but logits.
            resid_mid is set through attn_out, so that the skip connection sees the edit too; after
            an edit at q, k, v or pattern, attention goes on with the edited value; a pattern
            stays 0 at keys that the prompt does not have.
        change: (values [N, ...], places) -> new values, [N, ...] or [...], in the site's shape
            (see `Captures`).
        positions: where.
    """

    site: SiteRequest
    change: Change
    positions: Positions = "all"

    def __post_init__(self) -> None:
        if self.target.name == "logits":
            raise UnsupportedError("logits cannot be edited: edit final_norm or resid_post instead")

    @classmethod
    def set(cls, site: SiteRequest, value: Tensor, positions: Positions = "all") -> Edit:
        """Replace by `value`: [...], or [N, ...] in the order of the batch's places.

        That order is prompt by prompt and by ascending position, however `positions` is written.
        """
        return cls(site, lambda old, _: value.to(old), positions)

    @classmethod
    def add(cls, site: SiteRequest, value: Tensor, positions: Positions = "all") -> Edit:
        """Add `value`: [...] or [N, ...], in the order that `set` says."""
        return cls(site, lambda old, _: old + value.to(old), positions)

    @property
    def target(self) -> Site:
        """The edited site."""
        return site_of(self.site)
