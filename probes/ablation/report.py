"""Ablations in a report: what each component is worth, beside its control, and the compared values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import plotly.graph_objects as go
import polars as pl
import xarray as xr

from probes.ablation.comparison import Compared, compared
from probes.ablation.panels import CONTROL, METRICS, grids
from probes.causal.metrics import UNITS
from workbench.figures import LIGHT, layer_panels
from workbench.report.charts import layer_lines
from workbench.report.intervals import Interval
from workbench.report.sections import POINTWISE, Headline, Listing, Plot, Section, prompts_of
from workbench.report.summaries import means

__all__ = ["section"]

CELL = ["layer", "layer_end", "head"]
LOSS = ("loss", "nat per token", "Change of the next-token loss")
Said = Mapping[str, tuple[str, str, str]]
"""By column: what it is of, its unit, its title."""
TOP = 15
UNITS_SAID = "groups of prompts, each averaged first (a prompt without a group is one)"
METHOD = (
    "Each component is taken out at every position of the prompt; a change is the ablated run's number "
    "less the clean run's. The control moves the residual stream as far, at each token, in a random "
    "direction. Later components may make up for one that is missing."
)


def section(rows: pl.LazyFrame) -> Section:
    """Headlines of the strongest component, plots of every one, and a table of the strongest."""
    # Prompts of one group hang together: a group is one unit of a mean, and n counts groups.
    unit = pl.coalesce(pl.col("group").cast(pl.String), pl.col("prompt").cast(pl.String))
    table = rows.with_columns(prompt=unit).collect()
    if table.is_empty():
        return Section(remarks=[METHOD])
    said = _numbers(str(table["metric"][0]))
    found = {name: means(table.lazy(), name, CELL) for name in said}
    return Section(
        headlines=[_headline(found[name], *said[name][1:]) for name in said],
        plots=[plot for name in said for plot in _plots(table, name, *said[name])],
        listings=[_strongest(table, found["loss_effect"]), *_comparisons(table, said)],
        remarks=[METHOD],
    )


def _numbers(metric: str) -> Said:
    of = METRICS[metric]
    return {"loss_effect": LOSS, "effect": (of, UNITS[metric], f"Change of {of}")}


def _count(shown: pl.DataFrame) -> str:
    """How many units are behind the points of a plot."""
    return prompts_of(shown).replace("prompts", "groups")


def _named(cell: dict[str, int | None]) -> str:
    """A component, as a person calls it."""
    if cell["head"] is not None:
        return f"layer {cell['layer']}, head {cell['head']}"
    same = cell["layer"] == cell["layer_end"]
    return f"layer {cell['layer']}" if same else f"layers {cell['layer']} to {cell['layer_end']}"


def _headline(table: pl.DataFrame, unit: str, title: str) -> Headline:
    most = table.sort(pl.col("value").abs(), descending=True).row(0, named=True)
    return Headline(
        f"{title}, strongest ({_named(most)})",
        most["value"],
        most["low"],
        most["high"],
        unit,
        most["n"],
        "the largest of all that were ablated, so its interval is too narrow for a claim about it alone",
    )


def _plots(table: pl.DataFrame, name: str, of: str, unit: str, title: str) -> Iterator[Plot]:
    single = table["head"].is_null().all() and (table["layer"] == table["layer_end"]).all()
    if not single:
        yield _grid(table, name, of, unit, title)
        return
    shown = means(_stacked(table, name).lazy(), "value_of", ["line", "layer"])
    names = [one for one in shown["line"].unique().sort() if one != CONTROL] + [CONTROL]
    caption = f"Mean over {UNITS_SAID} (Student's interval), {unit}. {_count(shown)} {POINTWISE}"
    figure = layer_lines(shown, f"Δ {of}, {unit}", line="line", names=names)
    yield Plot(f"{title} at each layer", caption, figure, shown)


def _stacked(table: pl.DataFrame, name: str) -> pl.DataFrame:
    """Effects by the compared value, and the controls, one under the other."""
    keys = ["prompt", "layer"]
    own = table.select(*keys, line=pl.col("label").fill_null("ablated"), value_of=pl.col(name))
    control = table.select(*keys, line=pl.lit(CONTROL), value_of=pl.col(f"random_{name}"))
    both = pl.concat([own, control], how="vertical_relaxed")
    return both.drop_nulls("value_of")


def _grid(table: pl.DataFrame, name: str, of: str, unit: str, title: str) -> Plot:
    heads = table["head"].is_not_null().all()
    other = "head" if heads else "layer_end"
    parts = {"change": name, "random_change": f"random_{name}"}
    averaged = {
        key: means(table.lazy(), column, ["layer", other])
        for key, column in parts.items()
        if table[column].is_not_null().any()
    }
    shown = {key: _array(part, other) for key, part in averaged.items()}
    figure: go.Figure = layer_panels({"": grids("change", of, shown, unit)}, LIGHT)
    across = "heads" if heads else "the last layer of each range, upward the first"
    caption = f"Mean over {UNITS_SAID}, {unit}; across: {across}. {_count(averaged['change'])}"
    return Plot(title, caption, figure, averaged["change"])


def _array(table: pl.DataFrame, other: str) -> xr.DataArray:
    """[layer, other] of a summary; NaN where there is no such component."""
    frame = table.to_pandas().set_index(["layer", other])["value"].unstack(other)
    return xr.DataArray(
        frame.to_numpy(dtype=float),
        {"layer": frame.index.tolist(), other: frame.columns.tolist()},
        ("layer", other),
    )


def _strongest(table: pl.DataFrame, found: pl.DataFrame) -> Listing:
    best = found.sort(pl.col("value").abs(), descending=True).head(TOP)
    controls = table.group_by(CELL).agg(control=pl.col("random_loss_effect").mean())
    scores = table.group_by(CELL).agg(score_change=pl.col("effect").mean())
    joined = best.join(controls, on=CELL, how="left", nulls_equal=True, maintain_order="left")
    joined = joined.join(scores, on=CELL, how="left", nulls_equal=True, maintain_order="left")
    return Listing(
        "The strongest components",
        f"The {len(best)} with the largest mean change of the loss (nat per token, value with the ends of "
        f"Student's 95% interval), of {len(found)}; the control's mean beside them.",
        joined,
    )


def _comparisons(table: pl.DataFrame, numbers: Said) -> Iterator[Listing]:
    """Of the values of the compared field, where there are some."""
    if table["label"].null_count() == len(table):
        return
    labels = table["label"].unique().sort().to_list()
    lines, kinds = [], set()
    for key, part in table.group_by(CELL, maintain_order=True):
        for name, (of, _, _) in numbers.items():
            values = part[name].cast(pl.Float64).fill_null(float("nan"))
            one = compared(values, part["label"].to_list(), part["group"].to_list())
            kinds.add(_kind(one))
            cell = _named(dict(zip(CELL, key, strict=True)))
            apart = {label: _said(one.means.get(label)) for label in labels}
            lines.append(
                {"component": cell, "of": of, **apart, "difference": _said(one.difference)}
            )
    said = f"; difference: {labels[1]} less {labels[0]}, {' or '.join(sorted(kinds))}"
    yield Listing(
        "The compared values",
        "Mean change with its 95% interval, by the value of the compared field"
        + (said if len(labels) == 2 else "")
        + ".",
        pl.DataFrame(lines),
    )


def _kind(one: Compared) -> str:
    return (
        "paired by group (Student's interval of the groups' differences)"
        if one.paired
        else "unpaired (Welch's interval)"
    )


def _said(found: Interval | None) -> str:
    if found is None:
        return ""
    if found.low is None or found.high is None:
        return f"{found.value:+.3g}"
    return f"{found.value:+.3g} ({found.low:+.3g} to {found.high:+.3g})"
