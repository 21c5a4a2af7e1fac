"""Figures of the logit lens, on real results and on made-up ones of any size."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
import xarray as xr

import workbench as wb
from lenses import LogitLens
from lenses.logit.figures import COLOURS, candidates, cells, curves, figure, strip
from tests.figures.readings import reading


@pytest.fixture(scope="module")
def result() -> wb.Result:
    prompt = wb.Prompt("The Eiffel Tower is located in the city of", target=" Paris")
    return LogitLens(top_k=10, sites=("resid_post", "mlp_out"))(wb.load(), prompt)


def test_a_real_result_plots_itself(result: wb.Result) -> None:
    drawn = result.plot(theme="dark", colour="rank")
    assert drawn.data[0].text[-1][-1] == "<b>·Paris</b>"
    assert drawn.layout.yaxis.ticktext[0] == "emb"
    assert drawn.layout.yaxis.ticktext[-1] == "6"
    assert drawn.layout.paper_bgcolor == "#1a1d23"


@pytest.mark.parametrize("colour", COLOURS)
def test_every_colour_has_a_unit_and_holds_its_values(result: wb.Result, colour: str) -> None:
    (heat,) = figure(result.data, colour=colour).data
    assert ", " in heat.colorbar.title.text
    values = np.asarray(heat.z)
    assert heat.zmin - 1e-3 <= np.nanmin(values) <= np.nanmax(values) <= heat.zmax + 1e-3


def test_equal_tokens_keep_their_columns() -> None:
    data = reading(positions=12)
    data["token"] = ("place", np.array([" the"] * 12, dtype=object))
    axis = figure(data).layout.xaxis
    assert list(axis.tickvals) == list(range(12))
    assert axis.ticktext[:2] == ("0<br>·the", "1<br>·the")


def test_tokens_are_never_markup() -> None:
    data = reading(k=67)
    drawn = [figure(data), candidates(data, 1, 1), curves(data, 1)]
    for text in texts(drawn):
        assert "<b>bold" not in text
        assert "\n" not in text


def texts(figures: list[go.Figure]) -> list[str]:
    def walk(node: Any) -> list[str]:
        if isinstance(node, dict):
            node = list(node.values())
        if isinstance(node, list):
            return [text for child in node for text in walk(child)]
        return [node] if isinstance(node, str) else []

    return [text for drawn in figures for text in walk(json.loads(drawn.to_json()))]


def test_a_long_prompt_is_drawn_by_the_page_and_a_deep_model_by_the_stride() -> None:
    data = reading(layers=48, positions=256)
    drawn = figure(data, selected=(33, 40))
    labels = drawn.layout.yaxis.ticktext
    assert len(labels) == 26
    assert drawn.layout.xaxis.ticktext[0].startswith("32<br>")
    assert len(drawn.layout.xaxis.ticktext) == 16
    shape = drawn.layout.shapes[0]
    assert labels[int(shape.y0 + 0.5)] == "33"
    assert drawn.data[0].customdata[int(shape.y0 + 0.5)][int(shape.x0 + 0.5)] == "33 40"
    assert figure(data).layout.xaxis.ticktext[-1].startswith("255<br>")
    assert len(drawn.to_json()) < 150_000
    assert len(strip(data).to_json()) < 100_000


def test_pages_of_one_prompt_share_their_scale() -> None:
    data = reading(positions=40)
    first, last = (figure(data, colour="norm", selected=(1, at)).data[0] for at in (0, 39))
    assert (first.zmin, first.zmax) == (last.zmin, last.zmax)


def test_layers_and_positions_can_be_picked() -> None:
    picked = cells(reading(), layers=[0, 6], positions=slice(2, 4)).values
    assert picked["layer"].values.tolist() == [0, 6]
    assert picked["position"].values.tolist() == [2, 3, 4]


def test_contributions_pale_with_their_norm_and_have_no_embedding() -> None:
    drawn = figure(reading(), site="mlp_out")
    heat, veil = drawn.data
    assert set(veil.text[0]) == {""}
    assert np.nanmax(veil.z, axis=0).tolist() == [1] * 12
    assert heat.text is None


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"colour": "hue"}, "no colour 'hue'"),
        ({"colour": "entropy", "site": "mlp_out"}, "not defined"),
        ({"site": "attn"}, "no site 'attn'"),
        ({"prompt": "7"}, "no prompt '7'"),
        ({"layers": [9]}, "no layer 9"),
        ({"positions": slice(50, 60)}, "no position"),
        ({"selected": (9, 0)}, "no layer 9"),
        ({"theme": "sepia"}, "theme 'sepia'"),
    ],
)
def test_what_is_not_there_is_one_line(asked: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        figure(reading(), **asked)
    assert "\n" not in str(caught.value)


def test_no_target_no_target_colour() -> None:
    with pytest.raises(ValueError, match="no target was given"):
        figure(reading(target=False), colour="rank")


def test_a_missing_layer_has_no_candidates() -> None:
    with pytest.raises(ValueError, match="mlp_out has no layer 0"):
        candidates(reading(), 0, 0, site="mlp_out")


def test_candidates_name_the_target(result: wb.Result) -> None:
    drawn = candidates(result.data, 6, 11)
    assert drawn.layout.yaxis.ticktext[0].strip() == "1. ·Paris (target)"


def test_curves_of_a_cell_differ_by_more_than_colour(result: wb.Result) -> None:
    drawn = curves(result.data, 11, layer=3)
    looks = {(line.line.dash, line.marker.symbol) for line in drawn.data}
    assert len(looks) == len(drawn.data) == 3
    assert drawn.layout.yaxis2.title.text == "entropy, nat"
    assert drawn.layout.shapes[0].x0 == 3
    assert drawn.layout.height == 360  # room for a legend of three lines


def test_figures_leave_the_global_templates_alone(result: wb.Result) -> None:
    import plotly.io as pio

    before = pio.templates.default
    assert result.plot().layout.template.layout.colorway is None
    assert pio.templates.default == before


def test_a_result_may_hold_some_positions_only() -> None:
    some = reading().isel(place=[2, 7])
    assert figure(some).layout.xaxis.ticktext[1].startswith("7<br>")
    assert isinstance(cells(some).values, xr.DataArray)
