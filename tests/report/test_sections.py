"""What any instrument's rows become in a report, against pandas."""

from __future__ import annotations

import json

import numpy as np
import plotly.graph_objects as go
import polars as pl
import pytest
import torch

from tests.report.toys import MeanState, Picky
from tests.tiny import model
from workbench.report.charts import layer_lines
from workbench.report.sections import generic_section
from workbench.report.words import cell, figure_json, kind


def rows(columns: int = 2) -> pl.DataFrame:
    random = np.random.default_rng(0)
    return pl.DataFrame(
        [
            {"prompt": f"p{p}", "site": site, "layer": layer, "position": position, "empty": None}
            | {f"x{c}": float(random.normal(p + layer * c)) for c in range(columns)}
            for p in range(9)
            for site in ("up", "down")
            for layer in range(3)
            for position in range(1 + p % 3)
        ]
    )


def test_a_plot_for_each_number_with_a_line_for_each_site() -> None:
    section = generic_section(Picky, rows().lazy(), None)
    assert [plot.title for plot in section.plots] == ["x0", "x1"]
    within = rows().to_pandas().groupby(["site", "layer", "prompt"]).x1.mean()
    means = within.groupby(["site", "layer"]).mean()
    for site, layer, value, *_ in section.plots[1].table.rows():
        assert value == pytest.approx(means[site, layer])
    lines = {t.name: list(t.y) for t in section.plots[1].figure.data if t.name}
    assert lines == {s: pytest.approx(means[s].tolist()) for s in ("up", "down")}
    assert "n = 9 prompts" in section.plots[0].caption


def test_headlines_and_prompts_that_stand_out_are_over_all_rows() -> None:
    section = generic_section(Picky, rows().lazy(), None)
    within = rows().to_pandas().groupby("prompt").x0.mean().sort_values()
    assert section.headlines[0].value == pytest.approx(within.mean())
    (listing,) = section.listings
    assert listing.table["prompt"].to_list()[:5] == within.index[::-1][:5].tolist()
    assert sorted(listing.table["prompt"]) == sorted(within.index)


class Chances(Picky):
    """An instrument that says what its numbers can be."""

    ranges = {"x0": (0.0, 1.0)}  # noqa: RUF012


def test_intervals_are_cut_where_the_instrument_says() -> None:
    table = pl.DataFrame(
        [{"prompt": p, "layer": 0, "x0": x, "x1": x} for p, x in enumerate((0.1, 0.95))]
    )
    section = generic_section(Chances, table.lazy(), None)
    cut, whole = section.headlines
    assert (cut.low, cut.high) == (0, 1)
    assert whole.low is not None
    assert whole.low < 0
    assert section.plots[0].table.select("low", "high").rows() == [(0, 1)]


def test_more_columns_than_plots_are_said() -> None:
    section = generic_section(Picky, rows(columns=9).lazy(), None)
    assert len(section.plots) == 6
    assert all("3 more columns stand in the rows" in plot.caption for plot in section.plots)


def test_rows_without_layers_or_without_numbers() -> None:
    section = generic_section(Picky, rows().drop("layer").lazy(), None)
    assert (len(section.plots), len(section.headlines), len(section.listings)) == (0, 2, 1)
    section = generic_section(Picky, rows().select("prompt", "layer", "site").lazy(), None)
    assert section.remarks == ["The rows of this instrument have no numbers by prompt to draw."]


def test_fewer_prompts_at_some_layers_are_said() -> None:
    value = pl.when(pl.col("layer") == 2, pl.col("prompt") == "p1").then(None).otherwise("x0")
    table = rows().with_columns(x0=value)
    assert "n = 8 to 9 prompts" in generic_section(Picky, table.lazy(), None).plots[0].caption


def test_no_two_lines_of_a_plot_look_the_same() -> None:
    names = [f"line {i}" for i in range(12)]
    table = pl.DataFrame(
        [
            {"name": name, "layer": layer, "value": 1.0, "low": None, "high": None, "n": 2}
            for name in names
            for layer in (1, 2)
        ]
    )
    lines = layer_lines(table, "value", line="name", names=names).data
    looks = {(line.line.color, line.line.dash, line.marker.symbol) for line in lines}
    assert len(looks) == len(lines) == 12


def test_a_set_level_result_has_its_own_figure() -> None:
    result = MeanState()(model("gpt2", torch.float32), ["a", "b"])
    frame = pl.DataFrame(list(MeanState.rows(result.data)))
    section = generic_section(MeanState, frame.lazy(), result.data)
    assert section.plots[0].table.equals(frame)
    assert section.listings[0].caption == "The first 4 of 4 rows."


def test_cells() -> None:
    assert cell(None) == "–"
    assert cell(12345.678) == "12,346"
    assert cell([{"token": "a", "score": -0.5}]) == "a -0.5"
    assert cell("a\u202eb") == "a‹202e›b"
    assert cell("x" * 300).endswith("…")
    assert [kind(3, "prompt"), kind(3, "n"), kind("a", "top_token"), kind("a", "text")] == [
        "prompt",
        "number",
        "token",
        "text",
    ]


def test_no_text_of_a_figure_can_end_its_script() -> None:
    figure = go.Figure(go.Bar(x=["</script><!--"], y=[1]))
    text = figure_json(figure)
    assert "<" not in text
    assert json.loads(text)["data"][0]["x"] == ["</script><!--"]
