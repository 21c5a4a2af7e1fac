"""From the first pass's moments to the result: shortlists, the second pass, probes, figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from probes.sparse.controls import online_code
from probes.sparse.held_out import Examples, Probe, dense, direction, held_out
from probes.sparse.known import Feature, Known
from probes.sparse.labels import Pool
from probes.sparse.moments import Moments
from probes.sparse.passes import Columns
from probes.sparse.rankers import Ranker, by_moments, top
from probes.sparse.significance import p_values, statistics
from probes.sparse.sources import Source, layers, names
from probes.sparse.supports import Method
from workbench.errors import SettingError
from workbench.instrument import Measured, Named, State
from workbench.models.protocol import Model

__all__ = ["Asked", "evaluated"]

CELL = ("feature", "layer", "k")
UNITS: Mapping[str, str] = {
    "threshold": "logit",
    "compression": "bit / bit",
    "mcc": "correlation",
    "p": "probability",
    "average_precision": "share",
    "precision": "share",
    "recall": "share",
    "roc_auc": "share",
}


@dataclass(frozen=True)
class Asked:
    """What is asked of the second pass: settings of `SparseProbe`."""

    sources: Sequence[Source]
    positions: str
    pool: Pool
    ks: Sequence[int]
    method: Method
    ranker: Ranker
    shortlist: int
    dense: bool
    c: float
    seed: int


@dataclass(frozen=True)
class _Cell:
    """A feature in a source's units: ranked units of its task and of its control."""

    chosen: Tensor
    ranking: Tensor
    chosen_control: Tensor
    ranking_control: Tensor
    difference: Tensor
    p: Tensor | None


def evaluated(asked: Asked, known: Known, state: State, model: Model) -> Measured:
    """All variables of a result but the counts.

    Raises:
        SettingError: k is larger than the site has units.
    """
    cells = _cells(asked, known, state)
    columns = _second_pass(asked, known, cells, model)
    found = [
        [
            _evaluate(asked, number, one, source, cells[one.name, source], columns)
            for source in range(len(asked.sources))
        ]
        for number, one in enumerate(known.features.values())
    ]
    return _named(asked.sources, found)


def _cells(asked: Asked, known: Known, state: State) -> dict[tuple[str, int], _Cell]:
    family = _p_values(known, state, len(asked.sources))
    found = {}
    for source, of in enumerate(asked.sources):
        for number, one in enumerate(known.features.values()):
            moments = Moments(
                *(state[f"{source}.train.{part}"][number] for part in ("count", "mean", "spread"))
            )
            _require(asked, moments, of)
            scores = by_moments(moments, asked.ranker).nan_to_num(nan=0.0)
            chosen = top(scores, max(asked.shortlist, *asked.ks))
            found[one.name, source] = _Cell(
                chosen[0],
                scores[0][chosen[0]],
                chosen[1],
                scores[1][chosen[1]],
                moments.mean_difference()[0],
                family.get((one.name, source)),
            )
    return found


def _require(asked: Asked, moments: Moments, source: Source) -> None:
    units = moments.mean.shape[-1]
    if max(asked.ks) > units:
        raise SettingError(
            f"sparse_probe: k is {max(asked.ks)}: {source.name} has {units} units at layer "
            f"{source.site.layer}"
        )


def _p_values(known: Known, state: State, sources: int) -> dict[tuple[str, int], Tensor]:
    names = [(one, source) for one in known.features for source in range(sources)]
    found = []
    for one, source in names:
        if f"{source}.sums" not in state:
            return {}
        number = list(known.features).index(one)
        parts = (state[f"{source}.whole.{part}"][number] for part in ("count", "mean", "spread"))
        moments = Moments(*parts)
        mean, spread = moments.whole()
        sums, positives = state[f"{source}.sums"][number], state[f"{source}.positives"][number]
        found.append(statistics(sums, positives, int(moments.count.sum()), mean[0], spread[0]))
    return dict(zip(names, p_values(found), strict=True))


def _second_pass(
    asked: Asked, known: Known, cells: Mapping[tuple[str, int], _Cell], model: Model
) -> State:
    from workbench.passes import gather

    wanted = {
        key: {
            "task": cell.chosen,
            "control": cell.chosen_control,
            "difference": cell.difference[:, None],
        }
        for key, cell in cells.items()
    }
    second = Columns(asked.sources, asked.positions, asked.pool, known, wanted, asked.dense)
    (gathered,) = gather(model, known.prompts, [second])
    assert gathered.state is not None  # a set-level instrument's
    return gathered.state


def _evaluate(
    asked: Asked,
    number: int,
    one: Feature,
    source: int,
    cell: _Cell,
    columns: State,
) -> dict[str, Tensor]:
    """The variables of one feature and source."""
    index, order = columns[f"{number}.index"].sort()
    own = {
        what: columns[f"{number}.{source}.{what}"][order]
        for what in ("task", "control", "difference", *(["dense"] if asked.dense else []))
    }
    examples = Examples(one.labels[index], one.groups[index], one.part[index])
    how = {"method": asked.method, "c": asked.c, "seed": asked.seed}
    probes = held_out(own["task"], cell.ranking, examples, asked.ks, **how)  # type: ignore[arg-type]
    controls: Mapping[int, Probe] = {}
    if one.control is not None:
        task = Examples(one.control[index], one.groups[index], one.part[index])
        controls = held_out(own["control"], cell.ranking_control, task, asked.ks, **how)  # type: ignore[arg-type]
    numbers = [_numbers(probes[k], controls.get(k), cell) for k in asked.ks]
    found = {name: _real([n[name] for n in numbers]) for name in numbers[0]}
    found["compression"] = _real(
        [
            online_code(
                own["task"][:, probes[k].units], examples.labels, examples.groups, asked.seed
            )
            for k in asked.ks
        ]
    )
    straight = direction(own["difference"][:, 0], examples, seed=asked.seed)
    found["direction_f1"] = _real(straight.scores.f1)
    found["difference"] = cell.difference
    if asked.dense:
        whole = dense(own["dense"], examples, c=asked.c, seed=asked.seed)
        found["dense_f1"] = _real(whole.scores.f1)
    held = examples.labels[examples.test].double().mean()
    found |= {"all_positive": 2 * held / (1 + held), "random": held}
    slots = max(asked.ks)
    found["units"] = torch.stack(
        [_slots(cell.chosen[probes[k].strongest], slots, -1) for k in asked.ks]
    )
    weights = [_by_strength(probes[k]) for k in asked.ks]
    found["weight"] = torch.stack([_slots(weight, slots, math.nan) for weight in weights])
    return found


def _numbers(probe: Probe, control: Probe | None, cell: _Cell) -> dict[str, float]:
    held = probe.held_out
    missed = math.nan if control is None else control.held_out.scores.f1
    p = math.nan if cell.p is None else float(cell.p[cell.chosen[probe.units]].min())
    return {
        "f1": held.scores.f1,
        "f1_low": held.low,
        "f1_high": held.high,
        "precision": held.scores.precision,
        "recall": held.scores.recall,
        "mcc": held.scores.mcc,
        "average_precision": held.scores.average_precision,
        "roc_auc": held.scores.roc_auc,
        "threshold": held.threshold,
        "f1_at_zero": held.at_zero.f1,
        "validation_f1": held.validation,
        "control_f1": missed,
        "selectivity": held.scores.f1 - missed,
        "p": p,
    }


def _real(values: float | list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _by_strength(probe: Probe) -> Tensor:
    """[k] weights in the order of `strongest`."""
    at = {unit: i for i, unit in enumerate(probe.units.tolist())}
    return probe.weight[[at[unit] for unit in probe.strongest.tolist()]]


def _slots(values: Tensor, count: int, empty: float) -> Tensor:
    return torch.cat([values, values.new_full((count - len(values),), empty)])


def _named(
    sources: Sequence[Source], found: Sequence[Sequence[Mapping[str, Tensor]]]
) -> dict[str, Named]:
    """The variables by (site, feature, layer, ...), without the site where there is one alone."""
    dims = {
        **dict.fromkeys(("units", "weight"), (*CELL, "slot")),
        **dict.fromkeys(("direction_f1", "dense_f1"), CELL[:2]),
        "difference": (*CELL[:2], "unit"),
        **dict.fromkeys(("all_positive", "random"), CELL[:1]),
    }
    units = {
        **UNITS,
        "units": "unit index",
        "weight": "logit / activation",
        "difference": "activation",
    }
    several = len(names(sources)) > 1
    named = {}
    for name in found[0][0]:
        axes, unit = dims.get(name, CELL), units.get(name, "F1")
        if axes == CELL[:1]:
            named[name] = Named(axes, torch.stack([row[0][name] for row in found]), unit)
            continue
        grid = _grid(sources, [[cell[name] for cell in row] for row in found])
        named[name] = Named(("site", *axes), grid, unit) if several else Named(axes, grid[0], unit)
    return named


def _grid(sources: Sequence[Source], values: Sequence[Sequence[Tensor]]) -> Tensor:
    """[site, feature, layer, ...]; NaN, or -1 of whole numbers, where a source has no such layer or unit."""
    first = values[0][0]
    sites, at = names(sources), layers(sources)
    empty = math.nan if first.is_floating_point() else -1
    shape = [max(sizes) for sizes in zip(*(value.shape for value in values[0]), strict=True)]
    grid = first.new_full((len(sites), len(values), len(at), *shape), empty)
    for feature, row in enumerate(values):
        for source, value in zip(sources, row, strict=True):
            part = grid[sites.index(source.name), feature, at.index(source.site.layer)]
            part[tuple(map(slice, value.shape))] = value
    return grid
