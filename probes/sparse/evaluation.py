"""From the first pass's moments to the result: shortlists, the second pass, probes, figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from probes.sparse.controls import online_code
from probes.sparse.held_out import Examples, Probe, dense, direction, held_out
from probes.sparse.known import Feature, Known, offsets_of
from probes.sparse.labels import Pool
from probes.sparse.moments import Moments
from probes.sparse.named import named
from probes.sparse.neurons import SHOWN, entering, spread
from probes.sparse.passes import SEEN, Columns
from probes.sparse.rankers import Ranker, by_moments, top
from probes.sparse.significance import Arrangements, chance, p_values, statistics
from probes.sparse.sources import Source
from probes.sparse.supports import Method
from workbench.errors import SettingError
from workbench.instrument import Measured, State
from workbench.models.protocol import Model
from workbench.prompts import PromptSet

__all__ = ["Asked", "evaluated"]

GATHERING = 0.5  # of the time, the rest being fits
ENDS = ("low", "high")


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


def evaluated(
    asked: Asked, known: Known, state: State, model: Model, pace: Callable[[float], None]
) -> Measured:
    """All variables of a result but the counts; `pace` is told how far it is.

    Raises:
        SettingError: k is larger than the site has units.
    """
    cells = _cells(asked, known, state)
    prompts = known.prompts.subset(sorted(state[SEEN].tolist()))  # what failed once, fails again
    columns = _second_pass(
        asked, known, prompts, cells, model, lambda share: pace(GATHERING * share)
    )
    found: list[list[dict[str, Tensor]]] = []
    for number, one in enumerate(known.features.values()):
        index = columns[f"{number}.index"].sort().values
        arranged, row = _arranged(one, index, asked.seed), []
        for source in range(len(asked.sources)):
            cell = cells[one.name, source]
            row.append(_evaluate(asked, number, one, source, cell, columns, arranged))
            done = (number + len(row) / len(asked.sources)) / len(known.features)
            pace(GATHERING + (1 - GATHERING) * done)
        found.append(row)
    return named(asked.sources, found)


def _arranged(one: Feature, index: Tensor, seed: int) -> Tensor | None:
    """[permutations, test examples] labels of test groups that have exchanged theirs, or swapped classes.

    Of the examples `index`; None where that changes none of them.
    """
    if one.arrangements is None or not one.tested:
        return None
    test = index[one.part[index] == 2]
    labels, (_, groups) = one.labels[test], torch.unique(one.groups[test], return_inverse=True)
    drawn = Arrangements.draw(labels, groups, len(one.arrangements.orders) - 1, seed)
    offsets = offsets_of(groups)
    return drawn.arranged(groups, offsets)[1:] if drawn.says(groups, offsets) else None


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
    """Of one family; features that arrangements say nothing of have none, and are no part of it."""
    tested = [(number, one) for number, one in enumerate(known.features.values()) if one.tested]
    if not tested or any(f"{source}.sums" not in state for source in range(sources)):
        return {}
    found = p_values(
        [[_statistics(state, number, source) for source in range(sources)] for number, _ in tested]
    )
    return {
        (one.name, source): p
        for (_, one), own in zip(tested, found, strict=True)
        for source, p in enumerate(own)
    }


def _statistics(state: State, number: int, source: int) -> Tensor:
    """[arrangements, units] of a feature by its number."""
    parts = (state[f"{source}.whole.{part}"][number] for part in ("count", "mean", "spread"))
    moments = Moments(*parts)
    mean, spread = moments.whole()
    sums, positives = state[f"{source}.sums"][number], state[f"{source}.positives"][number]
    return statistics(sums, positives, int(moments.count.sum()), mean[0], spread[0])


def _second_pass(
    asked: Asked,
    known: Known,
    prompts: PromptSet,
    cells: Mapping[tuple[str, int], _Cell],
    model: Model,
    pace: Callable[[float], None],
) -> State:
    from workbench.passes import Progress, gather

    def tell(progress: Progress) -> None:
        pace(progress.done / progress.total)

    wanted = {
        key: {
            "task": cell.chosen,
            "control": cell.chosen_control,
            "difference": cell.difference[:, None],
        }
        for key, cell in cells.items()
    }
    second = Columns(asked.sources, asked.positions, asked.pool, known, wanted, asked.dense)
    (gathered,) = gather(model, prompts, [second], progress=tell)
    assert gathered.state is not None  # a set-level instrument's
    return gathered.state


def _evaluate(
    asked: Asked,
    number: int,
    one: Feature,
    source: int,
    cell: _Cell,
    columns: State,
    arranged: Tensor | None,
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
    ends = [_chance(arranged, probes[k]) for k in asked.ks]
    found |= {f"chance_{end}": _real([one[i] for one in ends]) for i, end in enumerate(ENDS)}
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
    return found | _by_themselves(own["task"], probes, examples, cell)


def _chance(arranged: Tensor | None, probe: Probe) -> tuple[float, float]:
    return (math.nan, math.nan) if arranged is None else chance(arranged, probe.held_out.said)


def _by_themselves(
    columns: Tensor, probes: Mapping[int, Probe], examples: Examples, cell: _Cell
) -> dict[str, Tensor]:
    """The units that probes take first, one by one."""
    first = entering(probes)
    p = torch.full((len(first),), math.nan) if cell.p is None else cell.p[cell.chosen[first]]
    return {
        "neuron": _slots(cell.chosen[first], SHOWN, -1),
        "neuron_p": _slots(p.double(), SHOWN, math.nan),
        **spread(columns[:, first], examples),
    }


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
