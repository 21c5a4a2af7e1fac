"""Particles in a report: order over the prompts beside its controls, and what differs from them."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from probes.particles.bootstrap import FEWEST, Summary, resampled
from probes.particles.comparison import PAIRS, compared, of_view, said, table_of
from probes.particles.quantities import LEADING, QUANTITIES
from probes.particles.theory import plots as theory_plots
from workbench.report.charts import layer_lines
from workbench.report.sections import Headline, Listing, Plot, Section, prompts_of

__all__ = ["section"]

OWN = "the model"
BAND = "The band is a 95% bootstrap interval over prompts at each layer by itself (pointwise)."
METHOD = (
    "Tokens are taken to unit length at each layer. Of random directions the mean cosine is 0, and the "
    "order parameter about 1/sqrt(n). A control's number is the mean over its draws; what is said to be "
    "above or below it lies beyond all its draws, by a 95% interval over prompts at each layer by itself: "
    "of 20 layers without any difference about one would be named."
)


def section(rows: pl.LazyFrame) -> Section:
    """What differs in words, order along the layers with its controls, and all numbers in a table."""
    table = rows.collect(engine="streaming").with_columns(pl.col("layer").cast(pl.Int64))
    usable = table.filter(pl.col("mean_cosine").is_not_null())
    left = table["prompt"].n_unique() - usable["prompt"].n_unique()
    short = [f"{left} prompts have fewer than two tokens that count, and no numbers."] * (left > 0)
    if usable.is_empty():
        return Section(remarks=[METHOD, *short])
    views = [view for view in ("centred", "raw") if view in usable["view"].unique()]
    return Section(
        headlines=[one for view in views for one in _headlines(usable, view)],
        plots=[
            *(plot for view in views for plot in _plots(usable, view)),
            *theory_plots(usable),
        ],
        listings=[_all_numbers(usable)],
        remarks=[METHOD, *said(usable), *short],
    )


def _controls(rows: pl.DataFrame, view: str) -> dict[str, str]:
    known = rows["view"].unique().to_list()
    return {
        control: name for (own, control), name in PAIRS.items() if own == view and control in known
    }


def _headlines(rows: pl.DataFrame, view: str) -> Iterator[Headline]:
    layers, own = of_view(rows, view, "mean_cosine")
    yield _headline(f"Mean cosine, {view}", resampled(own), layers[-1])
    for control, name in _controls(rows, view).items():
        found = compared(rows, view, control, "mean_cosine").difference
        yield _headline(f"Mean cosine, {view}, less that of {name}", found, layers[-1])


def _headline(label: str, found: Summary, layer: int) -> Headline:
    value, low, high, n = (
        part[-1].item() for part in (found.value, found.low, found.high, found.n)
    )
    few = n < FEWEST
    note = f"layer {layer}, the last; mean over prompts, bootstrap interval"
    if few:
        note = f"layer {layer}; too few prompts for an interval (at least {FEWEST})"
    return Headline(label, value, None if few else low, None if few else high, "", n, note)


def _plots(rows: pl.DataFrame, view: str) -> Iterator[Plot]:
    controls = _controls(rows, view)
    for quantity in LEADING:
        parts = [
            table_of(resampled(values), layers, name)
            for drawn, name in {view: OWN, **controls}.items()
            for layers, values in [of_view(rows, drawn, quantity)]
        ]
        title = QUANTITIES[quantity].title
        yield _plot(f"{title.capitalize()}, {view}", title, f"Mean over prompts: {title}.", parts)
    differences = [
        table_of(found.difference, found.layers, name)
        for control, name in controls.items()
        for found in [compared(rows, view, control, "mean_cosine")]
    ]
    if differences:
        yield _plot(
            f"Mean cosine, {view}, less its controls'",
            "difference of mean cosine",
            "Mean over prompts of the model's number less the control's on the same prompt.",
            differences,
        )


def _plot(title: str, label: str, what: str, parts: list[pl.DataFrame]) -> Plot:
    table = pl.concat(parts)
    names = [part["line"][0] for part in parts if not part.is_empty()]
    figure = layer_lines(table, label, line="line", names=names)
    return Plot(title, f"{what} {prompts_of(table)} {BAND}", figure, table)


def _all_numbers(rows: pl.DataFrame) -> Listing:
    """Means over prompts of every quantity, one row a view and layer."""
    names = [name for name in QUANTITIES if rows[name].is_not_null().any()]
    numbers = [pl.col(name).cast(pl.Float64).mean().round(4) for name in names]
    table = rows.group_by("view", "layer", maintain_order=True).agg(numbers)
    order = pl.Enum(list(dict.fromkeys(rows["view"])))
    return Listing(
        "All numbers",
        f"Means over {rows['prompt'].n_unique()} prompts; a control's over its draws first.",
        table.sort(pl.col("view").cast(order), "layer"),
    )
