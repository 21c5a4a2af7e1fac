"""What a pass reads: tensors by site, at the places asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.errors import SettingError
from workbench.models.batch import Batch, Places
from workbench.models.positions import Positions, checked_positions
from workbench.models.sites import Site, SiteRequest, site_of
from workbench.models.weights import Weights

__all__ = ["Captures", "Read"]


@dataclass(frozen=True)
class Read:
    """What to read in a pass: a site's name, or several names or (name, layer) pairs, at positions.

    Attributes:
        everywhere: sites that are wanted at every position, whatever `positions` says: what a place
            is told by others (keys and values, for one). `measure` gives them to the instrument as
            `captures.everywhere`.
    """

    sites: str | Sequence[SiteRequest]
    positions: Positions = "all"
    everywhere: Sequence[SiteRequest] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "positions", checked_positions(self.positions))


@dataclass(frozen=True)
class Captures:
    """Tensors [place, ...] read from one batch, by site.

    Attributes:
        values: site -> tensor [N, d], on the model's device and in its dtype; copies, never views of
            what the model goes on to use. [N, vocabulary] for logits; [N, heads, d_head] for q and
            z, [N, key heads, d_head] for k and v, [N, heads, keys] for pattern (a row's keys by
            position in its prompt).
        places: the N places of every tensor.
        batch: the batch they come from.
        readout: [rows, d] residual states -> [rows, vocabulary] logits, the model's own last step.
        weights: the model's weights, for an instrument that says `needs_weights`; None where they
            are not at hand.
        everywhere: the sites of `Read.everywhere` at every position of the same batch.
    """

    values: Mapping[Site, Tensor]
    places: Places
    batch: Batch
    readout: Callable[[Tensor], Tensor]
    weights: Weights | None = None
    everywhere: Captures | None = None

    def __getitem__(self, site: SiteRequest) -> Tensor:
        """The tensor of (name, layer), or of transformer-lens' hook of that name."""
        wanted = site_of(site)
        if wanted not in self.values:
            raise SettingError(f"{wanted} was not read in this pass: ask for it in its sites")
        return self.values[wanted]

    def layers(self, name: str) -> list[int]:
        """The layers at which site `name` was read, ascending."""
        return sorted(site.layer for site in self.values if site.name == name)

    def stack(self, name: str) -> Tensor:
        """[layer, N, ...]: site `name` at every layer that was read."""
        return torch.stack([self[name, layer] for layer in self.layers(name)])
