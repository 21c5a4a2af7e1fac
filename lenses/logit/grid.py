"""From statistics of a list of sites to the named axes of a logit-lens result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lenses.vocabulary import Statistics
from workbench.instrument import Named
from workbench.models.sites import Site

__all__ = ["CONTRIBUTIONS", "STATES", "Grid", "named"]

STATES = ("resid_pre", "resid_mid", "resid_post")
CONTRIBUTIONS = ("attn_out", "mlp_out")


@dataclass(frozen=True)
class Grid:
    """Places numbers of a list of sites on the axes (site, layer); sites of other names fall out."""

    names: tuple[str, ...]
    n_layers: int
    sites: Sequence[Site]

    def __call__(self, values: Tensor) -> Tensor:
        """[len(sites), ...] -> [site, layer, ...]; NaN, or -1 for integers, elsewhere."""
        empty = float("nan") if values.is_floating_point() else -1
        out = values.new_full((len(self.names), self.n_layers + 1, *values.shape[1:]), empty)
        for value, site in zip(values, self.sites, strict=True):
            if site.name in self.names:
                out[self.names.index(site.name), site.layer] = value
        return out

    def states_only(self, values: Tensor) -> Tensor:
        """The same, NaN for contributions."""
        out = self(values)
        for index, name in enumerate(self.names):
            if name in CONTRIBUTIONS:
                out[index] = float("nan")
        return out


def named(
    found: Statistics, norms: Tensor, settled: Tensor, targets: Mapping[str, Tensor], grid: Grid
) -> dict[str, Named]:
    """What the lens measures of one batch, by name; see `LogitLens`."""
    cell, top_id = ("site", "layer", "place"), grid(found.top_id)
    named = {
        "top_id": Named((*cell, "k"), top_id, "token id"),
        "top_logprob": Named((*cell, "k"), grid(found.top_logprob), "nat"),
        "entropy": Named(cell, grid.states_only(found.entropy), "nat"),
        "kl": Named(cell, grid.states_only(found.kl), "nat"),
        "js": Named(cell, grid.states_only(found.js), "nat"),
        "norm": Named(cell, grid(norms), "residual stream units"),
        "settling_layer": Named(("site", "place"), settled, "layer"),
    }
    for index, (role, ids) in enumerate(targets.items()):
        logprob = grid(found.logprob[index])
        named[f"{role}_id"] = Named(("place",), ids, "token id")
        named[f"{role}_logprob"] = Named(cell, logprob, "nat")
        named[f"{role}_rank"] = Named(cell, grid(found.rank[index]), "rank")
        if role == "target":
            peak = torch.where(logprob.isnan(), -torch.inf, logprob).max(dim=1)
            layer = torch.where(peak.values.isfinite(), peak.indices, -1)
            value = torch.where(peak.values.isfinite(), peak.values, torch.nan)
            named["target_peak_layer"] = Named(("site", "place"), layer, "layer")
            named["target_peak_logprob"] = Named(("site", "place"), value, "nat")
    return named
