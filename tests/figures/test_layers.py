"""One layer axis: every panel's rows lie at the same heights, and a click says what was meant."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import plotly.graph_objects as go
import pytest
import xarray as xr

import workbench as wb
from lenses import LogitLens
from tests.tiny import model
from workbench.figures import (
    Bars,
    Heat,
    Line,
    Lines,
    Panel,
    Scale,
    Words,
    layer_marks,
    layer_panels,
    themed,
)
from workbench.figures.generic import at_place, facts, generic_panels

LOOK = themed("light")
SCALE = Scale("p", "probability", "blue", 0, 1)


def along(count: int, **more: int) -> xr.DataArray:
    sizes = {"layer": count, **more}
    values = np.linspace(0, 1, int(np.prod(list(sizes.values())))).reshape(list(sizes.values()))
    return xr.DataArray(values, dims=list(sizes), coords={d: range(n) for d, n in sizes.items()})


def panels(count: int = 7) -> list[Panel]:
    low, high = along(count) - 0.1, along(count) + 0.1
    tokens = along(count, k=2).astype(object).copy(data=np.full((count, 2), "<b>x", dtype=object))
    return [
        Lines(
            "a",
            "a <i>, nat",
            {"one": Line(along(count)), "twin": Line(along(count), low, high, True)},
        ),
        Words("b", "b", tokens, along(count, k=2), SCALE),
        Heat("c", "c", along(count, position=5), SCALE),
        Bars("d", "d", along(count, part=2).assign_coords(part=["attn", "mlp"])),
    ]


def drawn(count: int = 7, **options: int) -> go.Figure:
    return layer_panels({"Sample": panels(count)}, LOOK, **options)


def test_every_panel_hangs_on_the_one_layer_axis() -> None:
    figure = drawn()
    assert {trace.yaxis for trace in figure.data} == {"y"}
    assert list(figure.layout.yaxis.range) == [-0.5, 6.5]
    assert list(figure.layout.yaxis.ticktext) == ["emb", "1", "2", "3", "4", "5", "6"]
    for trace in figure.data:
        if trace.hoverinfo != "skip":
            assert list(trace.y) == list(range(7))


def test_panels_stand_side_by_side_without_overlap() -> None:
    figure = drawn()
    ends = [figure.layout[name].domain for name in ("xaxis", "xaxis2", "xaxis3", "xaxis4")]
    assert ends[0][0] == 0
    assert ends[-1][1] == 1
    assert all(left[1] < right[0] for left, right in pairwise(ends))


def test_a_click_names_the_layer_and_where_there_is_one_the_position() -> None:
    heat = next(trace for trace in drawn().data if trace.xaxis == "x3")
    assert heat.customdata[4][2] == "4 2"
    words = next(trace for trace in drawn().data if trace.xaxis == "x2")
    assert words.customdata[4][1] == "4"
    line = next(trace for trace in drawn().data if trace.name == "one")
    assert line.customdata[3] == "3"


def test_a_control_is_drawn_beside_and_named_as_one() -> None:
    names = [trace.name for trace in drawn().data if trace.xaxis == "x" and trace.name]
    assert names == ["one", "twin (control)"]
    band = next(trace for trace in drawn().data if trace.fill == "toself")
    assert min(band.x) == pytest.approx(-0.1)
    assert max(band.x) == pytest.approx(1.1)


def test_markup_is_text() -> None:
    figure = drawn()
    assert figure.layout.xaxis.title.text == "a &lt;i&gt;, nat"
    words = next(trace for trace in figure.data if trace.xaxis == "x2")
    assert words.text[0][0] == "&lt;b&gt;x"


def test_the_selection_is_framed_in_all_panels_and_in_those_with_positions() -> None:
    row, column = layer_marks({"Sample": panels()}, LOOK, 4, 2)
    assert (row["xref"], row["x0"], row["x1"], row["y0"], row["y1"]) == ("paper", 0, 1, 3.5, 4.5)
    assert (column["xref"], column["x0"], column["x1"]) == ("x3", 1.5, 2.5)
    assert [shape.xref for shape in drawn(layer=4, position=2).layout.shapes] == ["paper", "x3"]
    assert len(layer_marks({"Sample": panels()}, LOOK, 4, 99)) == 1


def test_a_deep_model_keeps_the_text_of_the_selected_row() -> None:
    words = next(trace for trace in drawn(100, layer=33).data if trace.xaxis == "x2")
    written = [layer for layer, row in enumerate(words.text) if row[0]]
    assert 33 in written
    assert len(written) < 60
    assert drawn(100).layout.height < 1000


def test_titles_of_instruments_stand_above_their_panels() -> None:
    figure = layer_panels({"One": panels()[:2], "Two": panels()[2:]}, LOOK)
    texts = {note.text: note.x for note in figure.layout.annotations}
    assert texts["<b>One</b>"] == 0
    assert texts["<b>Two</b>"] == pytest.approx(figure.layout.xaxis3.domain[0])


def test_nothing_to_draw_is_refused() -> None:
    with pytest.raises(wb.ResultError, match="no panels"):
        layer_panels({"One": []}, LOOK)


def result() -> wb.Result:
    hooked = model("gpt2")
    prompts = [wb.Prompt("abc", target="a", foil="b"), wb.Prompt("abcdef", target="a", foil="b")]
    return LogitLens(top_k=3, sites=("resid_post", "mlp_out"))(hooked, prompts)


def test_the_lens_brings_what_its_dataset_holds() -> None:
    data = result().data
    shown = LogitLens.panels(data, prompt=1, position=2)
    assert [panel.name for panel in shown] == ["positions", "tokens", "probability", "spread"]
    place = at_place(data, 1, 2, "resid_post")
    lines = shown[2].lines
    assert np.allclose(lines["p(top-1)"].values, np.exp(place["top_logprob"].isel(k=0)))
    assert shown[0].values.sizes == {"layer": data.sizes["layer"], "position": 6}
    assert [p.name for p in LogitLens.panels(data, site="mlp_out")] == [
        "positions",
        "tokens",
        "probability",
    ]
    assert list(LogitLens.panels(data, site="nowhere")[0].values.dims) == ["layer", "position"]


def test_a_place_that_was_not_measured_is_refused() -> None:
    data = result().data
    with pytest.raises(wb.ResultError, match="no position 5"):
        LogitLens.panels(data, prompt=0, position=5)
    with pytest.raises(wb.ResultError, match="no prompt 7"):
        at_place(data, 7)


def test_any_dataset_has_panels_and_facts() -> None:
    data = result().data
    place = at_place(data, 1, 2, "resid_post")
    found = {panel.name: panel for panel in generic_panels(place)}
    line = next(
        panel for panel in found.values() if isinstance(panel, Lines) and "entropy" in panel.lines
    )
    assert line.lines["entropy"].values.identical(place["entropy"])
    assert isinstance(found["top_logprob"], Heat)
    said = dict(facts(place, 1))
    assert said["entropy"] == f"{place['entropy'].sel(layer=1).item():.4g} nat"


def test_several_results_share_one_axis_but_not_two_models() -> None:
    one = result()
    figure = wb.plot_layers([one], prompt=1, position=2, layer=1)
    assert figure.layout.shapes[0].y0 == 0.5
    other = LogitLens(top_k=3)(model("llama"), "abc")
    with pytest.raises(wb.ResultError, match="different models"):
        wb.plot_layers([one, other])


def test_signed_amounts_are_coloured_about_zero() -> None:
    values = (along(3, part=2) * 4 - 1).assign_attrs(unit="nat")
    (heat,) = generic_panels(xr.Dataset({"effect": values}))
    assert isinstance(heat, Heat)
    assert (heat.scale.hue, heat.scale.low, heat.scale.high) == ("signed", -3, 3)
    (plain,) = generic_panels(xr.Dataset({"effect": values + 1}))
    assert isinstance(plain, Heat)
    assert (plain.scale.hue, plain.scale.low, plain.scale.high) == ("blue", 0, 4)


def test_a_prompt_without_an_id_is_found_by_its_index_beside_others_that_have_one() -> None:
    prompts = [wb.Prompt("ab", id="first"), wb.Prompt("cd")]
    result = LogitLens()(model("gpt2"), prompts)
    assert wb.plot_layers([result], prompt=1) == wb.plot_layers([result], prompt="1")
