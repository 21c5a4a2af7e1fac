"""What attention and input attribution show: figures, panels, facts and report sections."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest

import workbench as wb
from lenses import Attention, InputAttribution
from lenses.attention.figures import best_head, of_prompt
from lenses.attention.panels import SHOWN
from tests.tiny import LAYERS, model
from workbench.figures import layer_panels, themed

PROMPTS = [wb.Prompt("ab<b>ab<b>", id="p"), wb.Prompt("abab", id="q")]
THEME = themed("light")


@pytest.fixture(scope="module")
def attention() -> wb.Result:
    return Attention(patterns=True)(model("gpt2"), PROMPTS)


@pytest.fixture(scope="module")
def attribution() -> wb.Result:
    return InputAttribution(positions="all")(model("gpt2"), PROMPTS)


def test_a_pattern_has_a_column_for_each_token_however_many_are_equal(
    attention: wb.Result,
) -> None:
    figure = attention.plot(selected=(2, 3), head=1, score="previous")
    over, pattern = figure.data
    assert np.shape(over.z) == (LAYERS, 2)
    weights = attention.data.pattern.sel(pattern_layer=2, pattern_head=1)
    np.testing.assert_array_equal(pattern.z, weights.values[:10])
    texts = figure.layout.xaxis2.ticktext
    assert len(set(texts)) == len(texts) == 10
    assert texts[2] == "&lt; 2"
    assert pattern.customdata[3][0] == "2 3"
    assert figure.layout.xaxis2.title.text == "layer 2, head 1: key"
    row = figure.layout.shapes[-1]
    assert (row.y0, row.y1) == (2.5, 3.5)


def test_the_overview_marks_uniform_attention_and_the_head_furthest_above_it(
    attention: wb.Result,
) -> None:
    one = of_prompt(attention.data, "q")
    excess = (
        one.induction.mean("place")
        - one.induction_chance.where(one.induction.notnull().any("head")).mean("place")
    ).values
    layer, head = best_head(one, "induction")
    assert excess[layer - 1, head] == excess.max()
    figure = attention.plot(prompt="q", selected=(layer, 0), head=None, score="induction")
    box = figure.layout.shapes[0]
    assert (box.x0 + 0.5, box.y0 + 0.5) == (head, layer - 1)
    uniform = [t for t in figure.data[0].colorbar.ticktext if t.startswith("uniform")]
    assert uniform == [f"uniform {(1 / 3 + 1 / 4) / 2:.2g}"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"score": "beauty"}, "no score 'beauty'"),
        ({"head": 7}, "no head 7"),
        ({"prompt": "z"}, "no prompt 'z'"),
    ],
)
def test_what_a_result_does_not_hold_is_refused(
    attention: wb.Result, options: dict[str, object], message: str
) -> None:
    with pytest.raises(wb.ResultError, match=message):
        attention.plot(**options)


def test_panels_show_excess_over_chance_and_entropy_beside_its_control(
    attention: wb.Result,
) -> None:
    panels = Attention.panels(attention.data)
    assert [panel.name for panel in panels] == [*SHOWN, "entropy"]
    entropy = panels[-1]
    assert [line.control for line in entropy.lines.values()] == [False, True]  # type: ignore[union-attr]
    expected = np.mean([math.log(n) for n in range(2, 11)])
    uniform = entropy.lines["uniform"].values  # type: ignore[union-attr]
    np.testing.assert_allclose(uniform, expected)
    assert layer_panels({"Attention": panels}, THEME, layer=2).data
    facts = dict(Attention.facts(attention.data, layer=2, position=9))
    assert facts["most induction"].endswith(", uniform 0.1")
    assert Attention.facts(attention.data, layer=0, position=9) == []


def test_a_prompt_without_repeats_has_no_induction_to_show() -> None:
    result = Attention()(model("gpt2"), "xyz")
    assert [panel.name for panel in Attention.panels(result.data)] == [
        "previous",
        "sink",
        "entropy",
    ]
    assert np.isnan(np.array(result.plot(score="induction").data[0].z, dtype=float)).all()
    rows = pl.LazyFrame(result.rows())
    assert not any("induction" in line.label for line in Attention.section(rows).headlines)


def test_the_report_names_the_highest_heads_beside_chance(attention: wb.Result) -> None:
    section = Attention.section(pl.LazyFrame(attention.rows()))
    line = next(it for it in section.headlines if it.label.startswith("highest induction"))
    rows = attention.to_frame()
    means = rows.groupby(["layer", "head"])[["induction", "induction_chance"]].mean()
    best = means.sort_values("induction").iloc[-1]
    assert line.value == pytest.approx(best.induction)
    assert f"chance {best.induction_chance:.3f}" in line.label
    assert line.n == 2
    assert section.plots[0].table["line"].unique().sort().to_list() == ["heads", "uniform"]


def test_input_attribution_is_drawn_for_the_selected_query(attribution: wb.Result) -> None:
    figure = attribution.plot(prompt="q", selected=(2, 3), method="raw", head=1)
    values = attribution.data.raw.sel(head=1).isel(place=10 + 3, key=slice(4))
    np.testing.assert_array_equal(figure.data[0].z, values)
    assert "raw of head 1, at b 3" in figure.layout.annotations[0].text
    rolled = attribution.plot(prompt="q", selected=(2, 2)).data[0].z
    np.testing.assert_allclose(np.sum(rolled, axis=1), 1)
    panels = InputAttribution.panels(attribution.data, prompt="q", position=3)
    assert [panel.name for panel in panels] == ["alti_rollout", "alti"]
    assert layer_panels({"x": panels}, THEME, layer=2, position=1).data
    facts = dict(InputAttribution.facts(attribution.data, layer=1, prompt="q", position=0))
    assert facts["most by alti"] == "a 0: 1 share"
    assert InputAttribution.facts(attribution.data, layer=0) == []
    with pytest.raises(wb.ResultError, match="no method 'gradient_x_input'"):
        attribution.plot(method="gradient_x_input")


def test_the_report_of_input_attribution(attribution: wb.Result) -> None:
    section = InputAttribution.section(pl.LazyFrame(attribution.rows()))
    own = [float(attribution.data.alti[-1, p, q]) for p, q in enumerate([*range(10), *range(4)])]
    line = next(it for it in section.headlines if it.label.endswith("layer, alti"))
    assert line.value == pytest.approx((np.mean(own[:10]) + np.mean(own[10:])) / 2)
    gradients = InputAttribution(methods=["gradient_x_input"])
    rows = gradients(model("gpt2"), wb.Prompt("abc", target=65)).rows()
    assert InputAttribution.section(pl.LazyFrame(rows)).listings[0].table.height == 2


def test_the_heading_writes_the_query_as_it_is() -> None:
    result = InputAttribution()(model("gpt2"), "a<")
    (heading,) = result.plot().layout.annotations
    assert heading.text == "ALTI, rolled out to the input, at &lt; 1"
