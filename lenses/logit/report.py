"""The logit lens in a report: when predictions form, how sure they are, and which prompts stand out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from lenses.logit.reading import LOGIT
from workbench.figures import visible
from workbench.report.charts import layer_counts, layer_lines
from workbench.report.intervals import ANY
from workbench.report.sections import (
    POINTWISE,
    Headline,
    Listing,
    Plot,
    Section,
    headline,
    prompts_of,
)
from workbench.report.summaries import at_last_position, means, medians, shares

__all__ = ["section"]

BY_LAYER = ("site", "layer")
MAY_BE_EMPTY = ("kl", "target_logprob", "target_rank", "foil_logprob")
SHOWN = 8
LAST = "at the last position read of each prompt"
WITHIN = "mean over the positions within each prompt, then over prompts"
SHARE = "share of prompts, Wilson's interval"
MEAN = "mean over prompts, Student's interval"
MEDIAN = "median over prompts, order-statistic interval"


def section(rows: pl.LazyFrame, ranges: Mapping[str, tuple[float, float]]) -> Section:
    """The logit lens' section, from the tidy rows of all prompts and the range of each column.

    What concerns the target, and the settling layer, is taken at the last position read of each
    prompt; entropy and KL are means over the positions within each prompt.
    """
    found = _Rows.of(rows, ranges)
    if not found.aimed:
        return Section(
            headlines=list(_headlines(found)),
            plots=[*_plots(found), _settling(found)],
            listings=[_latest(found), _turned(found)],
            remarks=[*_lens(rows), "No prompt has a target, so nothing is said of one."],
        )
    return Section(
        headlines=[*_target_headlines(found), *_headlines(found)],
        plots=[*_target_plots(found), *_plots(found), _settling(found)],
        listings=[_least_likely(found), _latest(found), _turned(found)],
        remarks=list(_lens(rows)),
    )


def _lens(rows: pl.LazyFrame) -> Iterator[str]:
    """What the states were read with, where it is not the logit lens."""
    if "lens" in rows.collect_schema():
        for lens in rows.select(pl.col("lens").unique().sort()).collect()["lens"]:
            if lens != LOGIT:
                yield (
                    f"Read with {lens}: each state is translated before the readout, so that KL and ranks "
                    "are those of the translated states, and not of the logit lens."
                )


@dataclass(frozen=True)
class _Rows:
    """Rows from the widest to the narrowest.

    Attributes:
        every: all rows.
        last: at each prompt's last position, with `hit`: whether the top token is the target.
        sites: the sites, in the order of the settings.
        layer: the last layer.
        aimed: whether any prompt has a target.
        contrasted: whether any prompt has a target and a foil.
        ranges: the least and the largest that a column can be.
    """

    every: pl.LazyFrame
    last: pl.LazyFrame
    sites: list[str]
    layer: int
    aimed: bool
    contrasted: bool
    ranges: Mapping[str, tuple[float, float]]

    @classmethod
    def of(cls, rows: pl.LazyFrame, ranges: Mapping[str, tuple[float, float]]) -> _Rows:
        rows = rows.with_columns(pl.col(MAY_BE_EMPTY).cast(pl.Float64))
        target, foil = pl.col("target_logprob"), pl.col("foil_logprob")
        facts = rows.select(
            sites=pl.col("site").unique(maintain_order=True).implode(),
            layer=pl.col("layer").max(),
            aimed=target.is_not_null().any(),
            contrasted=(target + foil).is_not_null().any(),
        )
        last = at_last_position(rows).with_columns(
            hit=pl.col("target_rank") == 1, contrast=target - foil
        )
        said = facts.collect(engine="streaming").row(0, named=True)
        # No top token settles later than the last layer.
        limits = {**ranges, "settling_layer": (0.0, float(said["layer"]))}
        return cls(rows, last, **said, ranges=limits)

    def means(self, rows: pl.LazyFrame, column: str, by: Sequence[str]) -> pl.DataFrame:
        """Means of a column of these rows; intervals are cut at its range."""
        return means(rows, column, by, self.ranges.get(column, ANY))

    @property
    def site(self) -> str:
        """The first site."""
        return self.sites[0]

    @property
    def final(self) -> pl.LazyFrame:
        """Of the first site, the last layer: for resid_post, the model's own prediction."""
        return self.at(self.layer)

    def at(self, layer: int) -> pl.LazyFrame:
        """Of the first site, one layer."""
        return self.last.filter(pl.col("layer") == layer, pl.col("site") == self.site)


def _target_headlines(found: _Rows) -> Iterator[Headline]:
    final, by = found.final, ["site"]
    where = f"{found.site}, layer {found.layer}"
    rank = medians(final, "target_rank", by)
    logprob = found.means(final, "target_logprob", by)
    yield headline(
        "Top token is the target", "share", shares(final, "hit", by), f"{where}; {SHARE}"
    )
    yield headline("Rank of the target", "(1 = best)", rank, f"{where}; {MEDIAN}")
    yield headline("log p(target)", "nat", logprob, f"{where}; {MEAN}")
    if found.contrasted:
        contrast = found.means(final, "contrast", by)
        yield headline("log p(target) - log p(foil)", "nat", contrast, f"{where}; {MEAN}")


def _headlines(found: _Rows) -> Iterator[Headline]:
    where = f"{found.site}, layer {found.layer}"
    for label, unit, column, note in (
        ("Entropy of the prediction", "nat", "entropy", f"{where}; {MEAN}"),
        ("Settling layer of the top token", "(layer)", "settling_layer", f"{found.site}; {MEAN}"),
    ):
        summary = found.means(found.final, column, ["site"])
        if len(summary):
            yield headline(label, unit, summary, note)


def _target_plots(found: _Rows) -> Iterator[Plot]:
    hit = shares(found.last, "hit", BY_LAYER)
    yield _plot(
        found,
        "When the target is the top token",
        f"Share of prompts whose top token is the target, {LAST} (Wilson's interval).",
        hit,
        "share of prompts",
        range=[-0.03, 1.03],
    )
    yield _plot(
        found,
        "How likely the target is",
        f"Mean log-probability of the target in nat, {LAST} (Student's interval).",
        found.means(found.last, "target_logprob", BY_LAYER),
        "log p(target), nat",
    )
    yield _plot(
        found,
        "Where the target ranks",
        f"Median rank of the target among all tokens (1 = best; logarithmic axis), {LAST} "
        "(order-statistic interval).",
        medians(found.last, "target_rank", BY_LAYER),
        "median rank of target",
        type="log",
        dtick="D2",
    )
    if found.contrasted:
        yield _plot(
            found,
            "Target against foil",
            f"Mean of log p(target) - log p(foil) in nat, which is their logit difference, {LAST}; "
            "above 0 the target is ahead (Student's interval).",
            found.means(found.last, "contrast", BY_LAYER),
            "log p(target) - log p(foil), nat",
        )


def _plots(found: _Rows) -> Iterator[Plot]:
    for title, said, column, label in (
        ("How sure each layer is", "Entropy of each layer's prediction", "entropy", "entropy"),
        (
            "How far each layer is from the last",
            "KL divergence from the final prediction to each layer's, where it is finite",
            "kl",
            "KL(final || layer)",
        ),
    ):
        table = found.means(found.every, column, BY_LAYER)
        if len(table):
            yield _plot(
                found,
                title,
                f"{said}, in nat: {WITHIN} (Student's interval).",
                table,
                f"{label}, nat",
            )


def _plot(
    found: _Rows, title: str, said: str, table: pl.DataFrame, label: str, **axis: Any
) -> Plot:
    figure = layer_lines(table, label, line="site", names=found.sites, **axis)
    return Plot(title, f"{said} {prompts_of(table)} {POINTWISE}", figure, table)


def _settling(found: _Rows) -> Plot:
    settled = found.last.unique(["prompt", "site"]).group_by("site", "settling_layer")
    table = settled.agg(prompts=pl.len()).rename({"settling_layer": "layer"})
    counted = table.collect(engine="streaming").sort("site", "layer", nulls_last=True)
    n = counted["prompts"].sum() // counted["site"].n_unique()
    return Plot(
        "Where predictions settle",
        f"The settling layer, from which on the top token stays the final one, {LAST}: how many of "
        f"n = {n} prompts settle at each layer.",
        layer_counts(counted, "settling layer", line="site", names=found.sites),
        counted,
    )


def _latest(found: _Rows) -> Listing:
    settled = found.final.drop_nulls("settling_layer")
    table = settled.sort("settling_layer", "top_logprob", "prompt", descending=[True, False, False])
    return Listing(
        "Predictions that settle last",
        f"The {SHOWN} prompts with the latest settling layer, of equal ones those whose final top token "
        f"is least likely, {LAST}. Log-probabilities in nat.",
        _listed(table, "settling_layer"),
    )


def _least_likely(found: _Rows) -> Listing:
    table = found.final.drop_nulls("target_logprob").sort("target_logprob", "prompt")
    return Listing(
        "Targets that the model thinks least likely",
        f"The {SHOWN} prompts with the lowest final log p(target), {LAST}. Log-probabilities in nat.",
        _listed(table, "target_logprob", "target_rank"),
    )


def _turned(found: _Rows) -> Listing:
    before = found.at(found.layer - 1).drop_nulls("kl")
    table = before.sort("kl", "prompt", descending=[True, False])
    turned = _listed(table, "kl").rename(
        {"top_token": "token_before", "top_logprob": "logprob_before"}
    )
    final = _listed(found.final.join(turned.lazy(), on="prompt", how="semi"))
    return Listing(
        "Predictions that the last block turns most",
        f"The {SHOWN} prompts with the largest KL(final || layer {found.layer - 1}), {LAST}: the top token "
        "before the last block, and the final one. KL and log-probabilities in nat.",
        turned.join(final, on="prompt", maintain_order="left"),
    )


def _listed(table: pl.LazyFrame, *columns: str) -> pl.DataFrame:
    """The first rows with their top token; its spaces and controls are made visible."""
    token = pl.col("top").list.first().struct.field("token")
    chosen = table.head(SHOWN).select(
        "prompt", *columns, top_token=token, top_logprob="top_logprob"
    )
    return chosen.collect().with_columns(
        pl.col("top_token").map_elements(visible, return_dtype=pl.String)
    )
