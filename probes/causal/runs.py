"""A run of some rows, with all that other runs take from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from probes.causal.cells import Table
from workbench.models.blocks import Blocks, Pair
from workbench.models.hooks import Point, attached
from workbench.models.sites import Site
from workbench.models.taps import recording

__all__ = ["Run", "recorded"]


@dataclass(frozen=True)
class Run:
    """Rows of equal length, run through every block.

    Attributes:
        states: [rows, width, d] after each layer 0..L.
        pairs: keys and values of each block.
        caught: other sites' values.
        projected: by block, what its modules of queries, keys and values give; empty where another's
            hooks hang on one.
    """

    states: tuple[Tensor, ...]
    pairs: tuple[Pair | None, ...]
    caught: Table
    projected: tuple[Mapping[nn.Module, Tensor], ...]

    @property
    def table(self) -> dict[Site, Tensor]:
        """Its values by site, resid_post among them."""
        stream = {Site("resid_post", layer): states for layer, states in enumerate(self.states)}
        return {**self.caught, **stream}

    def repeated(self, samples: int) -> Run:
        """Each row `samples` times, after each other."""
        if samples == 1:
            return self
        return Run(
            tuple(_repeated(states, samples) for states in self.states),
            tuple(
                None if pair is None else (_repeated(pair[0], samples), _repeated(pair[1], samples))
                for pair in self.pairs
            ),
            {site: _repeated(values, samples) for site, values in self.caught.items()},
            tuple(
                {module: _repeated(values, samples) for module, values in those.items()}
                for those in self.projected
            ),
        )

    def before(self, layer: int, column: int) -> Pair | None:
        """Keys and values of block `layer` below `column`; None where there are none."""
        pair = self.pairs[layer - 1]
        if pair is None or column == 0:
            return None
        return pair[0][:, :, :column], pair[1][:, :, :column]


def recorded(
    blocks: Blocks,
    embedded: Tensor,
    names: Sequence[str] = (),
    *,
    behind: Run | None = None,
    first: int = 0,
) -> Run:
    """Run rows from the states before block 1, and keep every layer's.

    Args:
        embedded: [rows, width, d].
        names: sites to keep beside the states.
        behind: a run whose columns below `first` are these rows' own; they are not run again.
    """
    states, pairs = [embedded], []
    caught: dict[Site, Tensor] = {}
    projected: list[dict[nn.Module, Tensor]] = []
    for layer in range(1, blocks.anatomy.n_layers + 1):
        own: dict[Site, Tensor] = {}
        given: dict[nn.Module, Tensor] = {}
        sites = [Site(name, layer) for name in names]
        before = None if behind is None else behind.before(layer, first)
        modules = blocks.projections(layer)
        with attached([(Point(module, "output"), recording(given, module)) for module in modules]):
            after, pair = blocks.run(
                layer,
                states[-1][:, first:],
                first=first,
                before=before,
                taps=[(site, recording(own, site)) for site in sites],
            )
        if behind is not None:
            after = _behind(behind.states[layer], after, first)
            own = {site: _behind(behind.caught[site], own[site], first) for site in sites}
            shared = behind.projected[layer - 1]
            given = {module: _behind(shared[module], given[module], first) for module in given}
        if before is not None and pair is not None:
            pair = torch.cat([before[0], pair[0]], 2), torch.cat([before[1], pair[1]], 2)
        states.append(after)
        pairs.append(pair)
        caught |= own
        projected.append(given)
    return Run(tuple(states), tuple(pairs), caught, tuple(projected))


def _behind(whole: Tensor, later: Tensor, first: int) -> Tensor:
    """Columns below `first` of one run, and all later ones of another."""
    return torch.cat([whole[:, :first], later], dim=1)


def _repeated(values: Tensor, samples: int) -> Tensor:
    """[rows * samples, ...], without a copy of a single row."""
    return values[:, None].expand(-1, samples, *values.shape[1:]).flatten(0, 1)
