"""Causal tracing in a report: averages by token role, and the prompts to look at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
import xarray as xr

from probes.causal.metrics import UNITS
from probes.causal.roles import ROLES
from probes.tracing.averages import averaged, difference, of_rows
from probes.tracing.reading import SITES
from workbench.report.charts import layer_lines
from workbench.report.sections import Headline, Listing, Plot, Section, prompts_of

__all__ = ["section"]

BOOTSTRAP = "percentile bootstrap over groups of prompts"
BAND = "The band is a 95% bootstrap interval over groups of prompts, at each layer by itself."
SHOWN = 20
WORDS = {"last_subject": "last subject token", "last": "last token"}
LOOKED = tuple(WORDS)  # the roles of the early and the late site


def section(rows: pl.LazyFrame) -> Section:
    """The total effect, the largest averages by component, the averages along the layers, odd prompts.

    Prompts without a subject have no roles, and are in the total effect and the lists alone.
    """
    found = _Found.of(rows)
    listings = [*_answers(found), *_without_effect(found)]
    remarks = [*_remarks(found)]
    if found.averages is None:
        return Section([found.total()], [], listings, remarks)
    return Section(
        [found.total(), *_largest(found)],
        [*_by_role(found), *_paired(found)],
        listings,
        remarks,
    )


@dataclass(frozen=True)
class _Found:
    """What the section is made of.

    Attributes:
        each: one row a prompt: prompt, group, clean, corrupted, total, target, top, correct, normalised.
        values: effects of each prompt by role, site and layer; None where there are no roles.
        averages: their averages.
        unit: of scores and effects.
        direction, metric: the settings.
    """

    each: pl.DataFrame
    values: xr.DataArray | None
    averages: xr.Dataset | None
    unit: str
    direction: str
    metric: str

    @classmethod
    def of(cls, rows: pl.LazyFrame) -> _Found:
        names = ("group", "clean", "corrupted", "total", "target", "top", "correct")
        each = (
            rows.group_by("prompt")
            .agg(
                *(pl.col(name).first() for name in (*names, "direction", "metric")),
                normalised=pl.col("normalised").cast(pl.Float64).mean(),
                roles=pl.col("role").count(),
            )
            .sort("prompt")
            .collect(engine="streaming")
        )
        values = of_rows(rows) if each["roles"].sum() else None
        averages = None if values is None else averaged(values)
        direction, metric = each.select("direction", "metric").row(0)
        return cls(each, values, averages, UNITS.get(metric, ""), direction, metric)

    def total(self) -> Headline:
        """The mean total effect."""
        group = self.each["group"].cast(pl.Int64).fill_null(-1).to_numpy()
        alone = np.where(group < 0, -1 - np.arange(len(group)), group)
        own = xr.DataArray(
            self.each["total"].to_numpy()[:, None],
            dims=("prompt", "cell"),
            coords={"group": ("prompt", alone)},
        )
        cell = averaged(own).isel(cell=0)
        return _headline("Total effect", self.unit, cell, "clean - corrupted, mean over prompts")


def _headline(label: str, unit: str, cell: xr.Dataset, note: str) -> Headline:
    value, low, high = (float(cell[name]) for name in ("mean", "low", "high"))
    if np.isnan(low):
        return Headline(
            label, value, None, None, unit, int(cell["n"]), "too few groups for an interval"
        )
    groups = int(cell["groups"])
    return Headline(
        label, value, low, high, unit, int(cell["n"]), f"{note}; {BOOTSTRAP} (n = {groups} groups)"
    )


def _largest(found: _Found) -> Iterator[Headline]:
    """Of each component at the early and at the late site, the layer's average furthest from 0."""
    assert found.averages is not None
    for role in LOOKED:
        for site in found.averages["site"].values.tolist():
            own = _informative(found.averages.sel(role=role, site=site), role, site)
            size = abs(own["mean"]).values
            if not np.isfinite(size).any():
                continue
            cell = own.isel(layer=int(np.nanargmax(size)))
            note = (
                f"layer {int(cell['layer'])}, the largest of {int(np.isfinite(size).sum())} layers: chosen "
                "after looking, so it and its interval flatter"
            )
            label = f"Largest average effect, {SITES[site]} at the {WORDS[role]}"
            yield _headline(label, found.unit, cell, note)


def _informative(own: xr.Dataset, role: str, site: str) -> xr.Dataset:
    """Without the last layer's state at the last token, which is the other run's by construction."""
    return own.isel(layer=slice(-1)) if (role, site) == ("last", "resid_post") else own


def _by_role(found: _Found) -> Iterator[Plot]:
    """Of each component, the averages of all roles along the layers."""
    assert found.averages is not None
    names = [_spoken(role) for role in ROLES]
    for site in found.averages["site"].values.tolist():
        table = _table(found.averages.sel(site=site))
        if table.is_empty():
            continue
        yield Plot(
            f"Average indirect effect by token role: {SITES[site]}",
            f"A prompt's tokens of a role are averaged first, then prompts. {prompts_of(table)} {BAND} "
            "Columns below and above of the table: "
            "between them lie 80% of the prompts.",
            layer_lines(table, f"effect, {found.unit}", line="role", names=names),
            table,
        )


def _paired(found: _Found) -> Iterator[Plot]:
    """MLP less attention at the early and the late site."""
    assert found.values is not None
    if not {"mlp_out", "attn_out"} <= set(found.values["site"].values.tolist()):
        return
    parts = []
    for role in LOOKED:
        one, other = ({"role": role, "site": site} for site in ("mlp_out", "attn_out"))
        parts.append(
            _table(difference(found.values, one, other)).with_columns(role=pl.lit(_spoken(role)))
        )
    table = pl.concat(parts)
    if not table.is_empty():
        yield Plot(
            "MLP less attention",
            "The average indirect effect of the MLP less that of attention, paired within prompts, at the "
            f"last subject token and at the last token. {BAND}",
            layer_lines(
                table, f"difference, {found.unit}", line="role", names=[*map(_spoken, LOOKED)]
            ),
            table,
        )


def _table(averages: xr.Dataset) -> pl.DataFrame:
    """Columns role (where it is a dim), layer, value, low, high, below, above, n, groups."""
    names = {"mean": "value", **{n: n for n in ("low", "high", "below", "above", "n", "groups")}}
    dims = [dim for dim in ("role", "layer") if dim in averages.dims]
    cells = averages.drop_attrs()[list(names)].stack(cell=dims)
    table = pl.DataFrame(
        {dim: cells[dim].values.tolist() for dim in dims}
        | {to: cells[name].values for name, to in names.items()}
    )
    if "role" in dims:
        table = table.with_columns(pl.col("role").str.replace_all("_", " ", literal=True))
    return table.fill_nan(None).drop_nulls("value")


def _answers(found: _Found) -> Iterator[Listing]:
    """Prompts that the clean run does not answer with the target."""
    columns = ("prompt", "target", "top", "clean", "corrupted", "total")
    wrong = found.each.filter(~pl.col("correct").cast(pl.Boolean)).sort("total", descending=True)
    if not wrong.is_empty():
        yield Listing(
            "The answer is another",
            f"{wrong.height} of {found.each.height} prompts: the clean run's top token is not the target. "
            f"They are in all averages. The first {min(SHOWN, wrong.height)}, by total effect.",
            wrong.select(columns).head(SHOWN),
        )


def _without_effect(found: _Found) -> Iterator[Listing]:
    """Prompts whose corruption changes nothing: a share of their total effect would be no number."""
    columns = ("prompt", "target", "clean", "corrupted", "total")
    none = found.each.filter(pl.col("normalised").is_null()).sort(pl.col("total").abs())
    if not none.is_empty():
        yield Listing(
            "No total effect",
            f"{none.height} of {found.each.height} prompts: the corrupted run scores about as the clean one, "
            "so that effects cannot be normalised. They are in the averages of plain effects. The "
            f"first {min(SHOWN, none.height)}.",
            none.select(columns).head(SHOWN),
        )


def _remarks(found: _Found) -> Iterator[str]:
    does = {
        "denoising": "one clean cell is put into the corrupted run: is it sufficient? An effect is the "
        "patched run's score less the corrupted run's",
        "noising": "one corrupted cell is put into the clean run: is it necessary? An effect is the "
        "patched run's score less the clean run's",
    }
    yield (
        f"{found.direction.capitalize()}: {does.get(found.direction, '')}. The score is "
        f"{found.metric.replace('_', ' ')}, in {found.unit}. The other direction may say something else, "
        "and components behind a cell repair or undo, so that effects do not add up."
    )
    rest = found.each.filter(pl.col("roles") == 0).height
    if rest:
        yield f"{rest} of {found.each.height} prompts have no subject and so no roles to average by."


def _spoken(role: str) -> str:
    return role.replace("_", " ")
