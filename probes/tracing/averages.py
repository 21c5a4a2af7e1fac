"""Averages by token role: over the tokens of a prompt first, then over prompts, with intervals.

Intervals are percentile bootstrap intervals that draw groups of prompts (a subject's) with
replacement: prompts that share a subject are no independent evidence. One draw serves every cell, so
that differences of cells are paired.

Source: Meng et al. 2022, arXiv 2202.05262, section 2.2 (averages by role); Efron 1979, "Bootstrap
methods: another look at the jackknife".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from probes.causal.roles import ROLES

if TYPE_CHECKING:
    import polars as pl

__all__ = ["RESAMPLES", "averaged", "by_role", "difference", "of_rows"]

RESAMPLES = 2000
LEVEL = 0.95
AXES = ("role", "site", "layer")
AT_ONCE = 4_000_000  # draws of groups held at a time
SPREAD = (0.1, 0.9)  # of prompts

Array = NDArray[np.float64]


def by_role(data: xr.Dataset, value: str = "effect") -> xr.DataArray:
    """Each prompt's mean over its tokens of a role.

    Args:
        data: a result's dataset.
        value: a variable with dims place, site and layer.

    Returns:
        Dims (prompt, role, site, layer), NaN where a prompt has no such token or the cell was not
        measured; coordinate `group` along prompt.
    """
    names, first, prompt = np.unique(data["prompt"].values, return_index=True, return_inverse=True)
    role = data["role"].values
    there = role >= 0
    cells = data[value].transpose("place", "site", "layer").values.astype(np.float64)
    index = prompt[there] * len(ROLES) + role[there]
    found = _means(cells[there], index, len(names) * len(ROLES))
    values = found.reshape(len(names), len(ROLES), *cells.shape[1:])
    return xr.DataArray(
        values,
        dims=("prompt", *AXES),
        coords={
            "prompt": names,
            "group": ("prompt", _alone(data["group"].values[first])),
            "role": list(ROLES),
            "site": data["site"].values,
            "layer": data["layer"].values,
        },
        attrs={"unit": data[value].attrs["unit"]},
    )


def of_rows(rows: pl.LazyFrame, value: str = "effect") -> xr.DataArray:
    """As `by_role`, from the tidy rows of a report."""
    import polars as pl

    cells = (
        rows.filter(pl.col("role").is_not_null())
        .group_by("prompt", "group", *AXES)
        .agg(pl.col(value).cast(pl.Float64).mean())
        .collect(engine="streaming")
    )
    axes = {
        "prompt": cells["prompt"].unique().sort(),
        "role": pl.Series(ROLES),
        "site": rows.select(pl.col("site").unique(maintain_order=True)).collect()["site"],
        "layer": cells["layer"].unique().sort(),
    }
    places = tuple(_places(cells[name], axis) for name, axis in axes.items())
    values = np.full([len(axis) for axis in axes.values()], np.nan)
    values[places] = cells[value].fill_null(float("nan")).to_numpy()
    group = np.full(len(axes["prompt"]), -1)
    group[places[0]] = cells["group"].cast(pl.Int64).fill_null(-1).to_numpy()
    coords = {name: axis.to_list() for name, axis in axes.items()}
    return xr.DataArray(values, dims=tuple(axes), coords=coords).assign_coords(
        group=("prompt", _alone(group))
    )


def averaged(values: xr.DataArray, *, resamples: int = RESAMPLES, seed: int = 0) -> xr.Dataset:
    """Mean over prompts of each cell, its 95% interval, and how far prompts spread.

    Args:
        values: one number a prompt and cell: dim prompt, with the coordinate group, and others.
        resamples: draws of as many groups as there are, with replacement.
        seed: of the draws.

    Returns:
        Of the other dims: mean; low and high, its percentile interval (NaN for fewer than two
        groups); below and above, between which lie 80% of the prompts; n, the prompts; groups.
    """
    other = [dim for dim in values.dims if dim != "prompt"]
    plain = values.transpose("prompt", *other)
    cells = plain.values.reshape(plain.sizes["prompt"], -1)
    _, group = np.unique(values["group"].values, return_inverse=True)
    sums, counts = _by_group(cells, group)
    low, high = _interval(sums, counts, resamples, seed)
    below, above = _quantiles(cells, SPREAD)
    with np.errstate(invalid="ignore"):
        mean = sums.sum(0) / counts.sum(0)
    found = {
        "mean": mean,
        "low": low,
        "high": high,
        "below": below,
        "above": above,
        "n": counts.sum(0).astype(np.int64),
        "groups": (counts > 0).sum(0),
    }
    shape = plain.shape[1:]
    return xr.Dataset(
        {name: (other, each.reshape(shape)) for name, each in found.items()},
        {dim: values[dim].values for dim in other if dim in values.coords},
        {**values.attrs, "prompts": plain.sizes["prompt"], "groups": len(sums)},
    )


def difference(
    values: xr.DataArray, one: Mapping[str, Any], other: Mapping[str, Any], **options: Any
) -> xr.Dataset:
    """`averaged` of the paired difference between two roles or sites, over prompts that have both.

    Args:
        values: as `by_role` gives them.
        one, other: which, such as {"role": "last_subject", "site": "mlp_out"}; the dims that they
            name are gone from the result.
        options: those of `averaged`.
    """
    left, right = (values.sel(which).drop_vars(which) for which in (one, other))
    return averaged(left - right, **options)


def _means(cells: Array, index: NDArray[Any], count: int) -> Array:
    """Means of the rows of each index, without NaN; NaN where there are none."""
    sums, counts = _by_group(cells, index, count)
    with np.errstate(invalid="ignore"):
        found: Array = sums / counts
    return found


def _by_group(cells: Array, index: NDArray[Any], count: int | None = None) -> tuple[Array, Array]:
    """Sum of the rows of each index without NaN, and how many there were."""
    there = ~np.isnan(cells)
    rows = count if count is not None else int(index.max(initial=-1)) + 1
    sums, counts = (np.zeros((rows, *cells.shape[1:])) for _ in range(2))
    np.add.at(sums, index, np.where(there, cells, 0.0))
    np.add.at(counts, index, there)
    return sums, counts


def _interval(sums: Array, counts: Array, resamples: int, seed: int) -> tuple[Array, Array]:
    groups, cells = sums.shape
    known = np.flatnonzero(counts.sum(0))
    low, high = np.full(cells, np.nan), np.full(cells, np.nan)
    if groups > 1 and len(known):
        drawn = np.concatenate(list(_drawn(sums[:, known], counts[:, known], resamples, seed)))
        low[known], high[known] = _quantiles(drawn, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return low, high


def _drawn(sums: Array, counts: Array, resamples: int, seed: int) -> Iterator[Array]:
    """[some resamples, cells]: means over the prompts of drawn groups, NaN where none has the cell."""
    draws, groups = np.random.default_rng(seed), len(sums)
    step = max(1, AT_ONCE // groups)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        chosen = draws.integers(0, groups, (rows, groups)) + groups * np.arange(rows)[:, None]
        times = np.bincount(chosen.ravel(), minlength=rows * groups).reshape(rows, groups)
        weights = times.astype(np.float64)
        with np.errstate(invalid="ignore"):
            yield (weights @ sums) / (weights @ counts)


def _quantiles(cells: Array, levels: tuple[float, float]) -> tuple[Array, Array]:
    """Of each column without NaN; NaN where there is nothing else."""
    known = np.flatnonzero(~np.isnan(cells).all(0))
    found = np.full((2, cells.shape[1]), np.nan)
    if len(known):
        found[:, known] = np.nanquantile(cells[:, known], levels, axis=0)
    return found[0], found[1]


def _places(column: pl.Series, axis: pl.Series) -> NDArray[np.int64]:
    known = {name: index for index, name in enumerate(axis)}
    return np.array([known[name] for name in column], dtype=np.int64)


def _alone(group: NDArray[Any]) -> NDArray[np.int64]:
    """Groups, each prompt without one in a group of its own."""
    return np.where(group < 0, -1 - np.arange(len(group)), group)
