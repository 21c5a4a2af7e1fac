"""Base against fine-tuned: the same axes, both numbers, one figure."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
import xarray as xr

import workbench as wb
from lenses import LogitLens
from tests.models.test_adapters import write
from tests.test_passes import LossOfNext
from tests.tiny import LAYERS, TEXTS, hf_model, tokenizer
from workbench.figures import Bars, Heat, Line, Lines, Scale, compared, layer_panels, themed
from workbench.figures.panels import Panel

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
LENS = LogitLens(top_k=2)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> wb.Model:
    folder = write(tmp_path_factory.mktemp("lora") / "tuned")
    return wb.load(hf_model("llama", torch.float32), tokenizer(), adapter=folder)


@pytest.fixture(scope="module")
def found(tuned: wb.Model) -> wb.Comparison:
    (one,) = wb.compare(tuned.with_adapter(None), tuned, TEXTS, [LENS])
    return one


def test_each_side_is_what_it_measures_alone(tuned: wb.Model, found: wb.Comparison) -> None:
    for result, model in ((found.base, tuned.with_adapter(None)), (found.tuned, tuned)):
        assert result.data.drop_attrs().equals(LENS(model, TEXTS).data.drop_attrs())
    assert not found.base.data["entropy"].equals(found.tuned.data["entropy"])
    assert found.names == ("LlamaForCausalLM", "LlamaForCausalLM + tuned")
    assert repr(found) == "<logit_lens: LlamaForCausalLM against LlamaForCausalLM + tuned>"


def test_every_instrument_at_once(tuned: wb.Model) -> None:
    both = wb.compare(tuned.with_adapter(None), tuned, TEXTS[:2], [LENS, LogitLens(top_k=1)])
    assert [one.base.data.sizes["k"] for one in both] == [2, 1]


def test_rows_name_the_model(found: wb.Comparison, tmp_path: Path) -> None:
    rows = found.rows()
    half = len(rows) // 2
    assert [row["model"] for row in rows] == [found.names[0]] * half + [found.names[1]] * half
    assert rows[half] == {"model": found.names[1]} | found.tuned.rows()[0]
    assert list(rows[0])[:3] == ["model", "prompt", "site"]
    found.save(tmp_path / "rows.parquet")
    assert len(pd.read_parquet(tmp_path / "rows.parquet")) == len(rows)
    assert json.loads(found.save(tmp_path / "rows.json").read_text()) == rows
    with pytest.raises(wb.ResultError, match="expected a suffix of .parquet"):
        found.save(tmp_path / "both.nc")


def test_the_figure_shows_both_and_the_difference(found: wb.Comparison) -> None:
    figure = found.plot(prompt=2, panels=["spread"])
    drawn = {trace.name: list(trace.x) for trace in figure.data}
    place = int((found.base.data["prompt"] == 2).values.nonzero()[0][-1])
    one, other = (r.data["entropy"].isel(site=0, place=place) for r in (found.base, found.tuned))
    entropies = [trace for trace in figure.data if trace.xaxis == "x"]
    assert [trace.name for trace in entropies] == list(found.names)
    assert list(entropies[0].x) == one.values.tolist()
    assert list(entropies[1].x) == other.values.tolist()
    assert drawn["entropy"] == (other - one).values.tolist()
    headings = [note.text for note in figure.layout.annotations]
    assert headings == ["<b>both models</b>", "<b>difference</b>"]


def test_all_panels_and_a_place_that_is_none(found: wb.Comparison) -> None:
    headings = [note.text for note in found.plot().layout.annotations]
    assert headings[:2] == [f"<b>{name}</b>" for name in found.names]
    assert "plotly" in str(found._repr_mimebundle_().keys())
    with pytest.raises(wb.ResultError, match="no panel 'x': expected one of positions, tokens"):
        found.plot(panels=["x"])
    with pytest.raises(wb.ResultError):
        found.plot(prompt=9)


def layered(values: list[float], other: str = "") -> xr.DataArray:
    array = xr.DataArray(values, {"layer": range(len(values))}, ["layer"], attrs={"unit": "nat"})
    return array.expand_dims({other: ["a"]}, axis=1) if other else array


def test_every_kind_of_panel() -> None:
    scale = Scale("score", "nat", "blue", 0, 4)

    def panels(step: float) -> list[Panel]:
        line, control = Line(layered([0, step])), Line(layered([9, 9]), control=True)
        return [
            Lines("lines", "loss, nat", {"loss": line, "twin": control, f"own {step}": line}),
            Heat("heat", "by head", layered([1, 1 + step], "head"), scale),
            Bars("bars", "parts", layered([1, 1 - step], "part")),
            *([Heat("alone", "of one", layered([1, 1], "head"), scale)] if step == 1 else []),
        ]

    groups = compared(panels(1), panels(3), ("base", "base + x"))
    assert {name: [panel.name for panel in group] for name, group in groups.items()} == {
        "base": ["heat", "bars"],
        "base + x": ["heat", "bars"],
        "both models": ["lines-loss", "lines-twin"],
        "difference": ["lines", "heat", "bars"],
    }
    assert groups["both models"][0].title == "loss, nat"
    lines, heat, bars = groups["difference"]
    assert list(lines.lines) == ["loss"]
    assert lines.lines["loss"].values.values.tolist() == [0, 2]
    assert heat.values.values.tolist() == [[0], [2]]
    assert (heat.scale.low, heat.scale.high) == (-2, 2)
    assert bars.values.values.tolist() == [[0], [-2]]
    assert len(layer_panels(groups, themed("light")).data) == 11


def test_long_names_do_not_stand_in_legends() -> None:
    panel = Lines("lines", "loss, nat", {"loss": Line(layered([0, 1]))})
    groups = compared([panel], [panel], ("a/name", "a/name + adapter of many letters"))
    assert list(groups["both models"][0].lines) == ["base", "tuned"]


def test_models_that_cannot_be_compared(tuned: wb.Model) -> None:
    other = wb.load(hf_model("llama", torch.float32), tokenizer(bos=True))
    with pytest.raises(wb.ModelError, match="prompt 0: .* make other tokens of it"):
        wb.compare(tuned, other, TEXTS, [LENS])
    with pytest.raises(wb.ModelError, match=f"has {LAYERS} blocks and atlas 6: layers are"):
        wb.compare(tuned, wb.load("atlas"), TEXTS, [LENS])


def test_two_models_of_one_name(tuned: wb.Model) -> None:
    other = hf_model("llama", torch.float32)
    other.lm_head.weight.data.mul_(2)
    (found,) = wb.compare(
        tuned.with_adapter(None), wb.load(other, tokenizer()), TEXTS[0], [LossOfNext()]
    )
    assert found.names == ("LlamaForCausalLM (base)", "LlamaForCausalLM (tuned)")


def test_one_layer_axis_for_one_model_and_adapter(found: wb.Comparison) -> None:
    with pytest.raises(wb.ResultError, match=r"different models .*LlamaForCausalLM \+ tuned \("):
        wb.plot_layers([found.base, found.tuned])
    assert "of LlamaForCausalLM + tuned:" in repr(found.tuned)
    assert "LlamaForCausalLM + tuned" in found.tuned.cite()
