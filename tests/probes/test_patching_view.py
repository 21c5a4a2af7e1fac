"""What rows, figures, panels, facts and the report's section say of patching."""

from functools import cache
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
import xarray as xr
from scipy import stats

import workbench as wb
from app.output import print_table
from probes import Patch, PathPatch
from probes.patching.reading import mean_of
from tests.tiny import LAYERS, model
from workbench.figures import Heat, Lines
from workbench.report.tables import frame

PROMPTS = [
    wb.Prompt(
        "a <b>c", id="p1", target="x", foil="y", subject="<b>", corrupted="a <i>c", group="g"
    ),
    wb.Prompt(
        "a <b>d", id="p2", target="y", foil="z", subject="<b>", corrupted="a <i>d", group="g"
    ),
    wb.Prompt("ab xyz", id="p3", target="x", foil="q", subject="xyz", corrupted="ab cde"),
]


@cache
def each() -> wb.Result:
    return Patch(("resid_post", "attn_out", "z", "v"), layers=range(LAYERS + 1))(
        model("llama"), PROMPTS
    )


@cache
def together() -> wb.Result:
    return Patch(("mlp_out", "z"), scope="together", direction="noising")(model("gpt2"), PROMPTS)


@cache
def path() -> wb.Result:
    return PathPatch(receivers="q2.1,mlp3", mlps="frozen")(model("gpt2"), PROMPTS)


def heats(drawn: go.Figure) -> list[go.Heatmap]:
    return [trace for trace in drawn.data if trace.type == "heatmap"]


def said(drawn: go.Figure) -> str:
    return str(drawn.layout.annotations[0].text)


def test_rows_have_the_keys_of_every_causal_instrument_and_a_head() -> None:
    rows = each().rows()
    keys = "prompt site layer head position token score effect stderr clean corrupted normalised"
    assert list(rows[0])[:12] == keys.split()
    cells = 2 * (LAYERS + 1) - 1 + LAYERS * 2 + LAYERS * 1  # attention and heads from layer 1 on
    assert len(rows) == cells * each().data.sizes["place"]  # llama's keys and values have one head
    row = next(r for r in rows if (r["prompt"], r["site"], r["layer"]) == ("p2", "z", 2))
    assert (row["head"], row["position"], row["token"]) == (0, 0, "<|endoftext|>")
    found = each().data.sel(head_site="z", layer=2, head=0).isel(place=7)
    assert row["effect"] == pytest.approx(float(found.head_effect))
    assert row["total"] == pytest.approx(row["clean"] - row["corrupted"])
    assert (row["stderr"], row["target"], row["role"]) == (None, "y", "before_subject")
    whole = [r for r in together().rows() if r["prompt"] == "p1"]
    assert {(r["position"], r["token"], r["tokens"]) for r in whole} == {(None, None, 6)}
    assert {r["head"] for r in whole if r["site"] == "mlp_out"} == {None}
    assert {(r["receivers"], r["mlps"]) for r in path().rows()} == {("q2.1,mlp3", "frozen")}


def test_one_prompt_is_drawn_by_token_and_its_heads_at_one_token() -> None:
    data = each().data
    drawn = each().plot(prompt="p1", selected=(2, 3), theme="dark")
    state, attention, z, v = heats(drawn)
    one = data.isel(place=range(7))
    np.testing.assert_allclose(state.z, one.effect.sel(site="resid_post").values.T, rtol=1e-6)
    np.testing.assert_allclose(
        z.z, one.isel(place=3).head_effect.sel(head_site="z").values, rtol=1e-6
    )
    assert (state.zmax, z.zmax) == (attention.zmax, v.zmax)
    assert state.zmin == -state.zmax
    assert (state.customdata[2][3], z.customdata[2][1]) == ("2 3", "2")
    assert drawn.layout.xaxis.ticktext[3] == "&lt; 3"  # a token is no markup
    assert "at 3 &lt;" in drawn.layout.xaxis3.title.text
    assert [(s.x0, s.y0) for s in drawn.layout.shapes] == [(2.5, 1.5)] * 2
    assert "p1" not in said(drawn)
    assert f"total effect {float(one.total[0]):+.3g} logit" in said(drawn)
    assert "one token at a time" in said(drawn)
    share = heats(each().plot(prompt="p1", value="normalised"))[0]
    np.testing.assert_allclose(
        share.z[1:], one.normalised.sel(site="resid_post").values.T[1:], rtol=1e-5
    )
    with pytest.raises(wb.ResultError, match="no prompt 'p9'"):
        each().plot(prompt="p9")


def test_several_prompts_are_means_over_groups_by_role() -> None:
    data = each().data
    drawn = each().plot()
    state, *_ = heats(drawn)
    assert drawn.layout.xaxis.ticktext == (
        *("before subject", "first subject", "middle subject", "last subject"),
        "last",
    )
    last = (
        data.isel(place=[6, 13]).effect.sel(site="resid_post", layer=1).mean()
    )  # one group: p1, p2
    assert float(state.z[1][4]) == pytest.approx(float(last), rel=1e-6)
    subject = data.isel(place=[5, 12, 20]).effect.sel(site="resid_post", layer=1).values
    groups = np.array([subject[:2].mean(), subject[2]])
    half = stats.t.ppf(0.975, 1) * groups.std(ddof=1) / np.sqrt(2)
    ends = (
        f"{groups.mean():+.3g} ({groups.mean() - half:+.3g} to {groups.mean() + half:+.3g}, n = 2)"
    )
    assert ends in state.hovertext[1][3]
    assert "Means over 3 prompts in 2 groups" in said(drawn)
    assert drawn.layout.xaxis3.title.text.endswith("at the last token")


def test_a_mean_of_groups_leaves_out_what_does_not_exist() -> None:
    values = np.array([[1.0, np.nan], [3.0, np.nan], [5.0, 2.0]])
    found = mean_of(values, np.array([7, 7, 8]))
    np.testing.assert_array_equal(found.value, [3.5, 2.0])
    np.testing.assert_array_equal(found.n, [2, 1])
    assert found.half[0] == pytest.approx(stats.t.ppf(0.975, 1) * 1.5)
    assert np.isnan(found.half[1])
    assert np.isnan(mean_of(values[:2], np.array([7, 7])).value[1])


def test_tokens_together_are_drawn_by_site_and_head() -> None:
    drawn = together().plot()
    sites, heads = heats(drawn)
    assert drawn.layout.xaxis.ticktext == ("MLP",)
    mean = together().data.head_effect.values
    expected = (mean[:2].mean(0) + mean[2]) / 2  # two prompts of one group
    np.testing.assert_allclose(heads.z, expected[0], rtol=1e-6)
    assert sites.z.shape == (LAYERS, 1)
    assert "all 6 tokens together" in said(drawn)
    assert "clean run." in said(drawn)
    told = said(path().plot())
    assert "Paths to q2.1, mlp3 alone: attention and MLPs between are frozen" in told


def test_panels_and_facts_of_a_place() -> None:
    by_position, lines, z, v = Patch.panels(each().data, prompt="p1", position=2)
    assert isinstance(by_position, Heat)
    assert by_position.values.dims == ("layer", "position")
    assert isinstance(lines, Lines)
    assert lines.lines["attention"].values["layer"].values.tolist() == [1, 2, 3]
    assert isinstance(z, Heat)
    assert isinstance(v, Heat)
    assert (z.values.shape, v.values.shape) == ((3, 2), (3, 1))
    facts = dict(Patch.facts(each().data, layer=2, prompt="p1", position=2))
    cell = each().data.isel(place=2).sel(layer=2)
    assert facts["effect of state"].startswith(f"{float(cell.effect.sel(site='resid_post')):+.3g}")
    assert facts["put in"] == "one token at a time"
    best = cell.head_effect.sel(head_site="z")
    assert facts["largest heads, z"].startswith(f"{int(abs(best).values.argmax())}: ")
    # Together, whatever position is selected, it is the prompt's one place.
    shown = PathPatch.facts(path().data, layer=1, prompt="p2", position=1)
    assert ("put in", "all 6 tokens together") in shown
    assert len(PathPatch.panels(path().data, position=1)) == 2


def test_the_report_says_what_was_done_and_which_heads_stand_out() -> None:
    section = Patch.section(frame(together().rows()).lazy())
    total, *_ = section.headlines
    assert total.value == pytest.approx(float(together().data.total.mean()))
    assert section.remarks[0] == (
        "Corrupted values were put into the clean run (noising); scored by logit difference."
    )
    (listing,) = section.listings
    means = together().data.head_effect.mean("place").values[0]
    assert listing.table["effect"][0] == pytest.approx(means.ravel()[abs(means).argmax()])
    assert "all tokens together" in listing.caption
    (plot,) = section.plots
    assert plot.table.height == LAYERS
    single = Patch.section(frame(each().rows()).lazy())
    assert "the last token" in single.plots[0].caption
    expected: Any = (
        each().data.isel(place=[6, 13, 20]).effect.sel(site="resid_post", layer=2).mean()
    )
    table = single.plots[0].table.filter(layer=2, site="state")
    assert table["value"][0] == pytest.approx(float(expected))
    assert (
        "attention and MLPs between were frozen"
        in PathPatch.section(frame(path().rows()).lazy()).remarks[0]
    )


def test_a_saved_result_draws_the_same(tmp_path: Any) -> None:
    together().save(tmp_path / "found.nc")
    read = wb.Result.load(tmp_path / "found.nc")
    xr.testing.assert_equal(read.data, together().data)
    assert said(read.plot()) == said(together().plot())


def test_the_command_line_prints_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    """Its best token is a word here, not the logit lens' list."""
    print_table(each())
    assert "normalised" in capsys.readouterr().out
