"""What figures, panels, facts and the report's section say of a causal trace."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
import polars as pl
import pytest
import xarray as xr
from scipy import stats

from probes.causal.roles import ROLES
from probes.tracing.average_figure import TWIN, figure_of_roles
from probes.tracing.averages import averaged, by_role
from probes.tracing.facts import facts
from probes.tracing.figures import figure
from probes.tracing.panels import panels
from probes.tracing.prompt_figure import figure_of_prompt
from probes.tracing.report import section
from probes.tracing.rows import rows
from tests.probes.traced import FOUR, Traced, traced
from workbench import ResultError
from workbench.figures import Heat, Lines
from workbench.report.tables import frame

T = float(stats.t.ppf(0.975, 2))  # of three samples


def said(drawn: go.Figure) -> str:
    return str(drawn.layout.annotations[0].text)


def heats(drawn: go.Figure) -> list[go.Heatmap]:
    return [trace for trace in drawn.data if trace.type == "heatmap"]


def tabled(data: xr.Dataset) -> pl.LazyFrame:
    return frame(rows(data)).lazy()


def test_rows_are_cells_with_all_that_they_are_held_against() -> None:
    data = traced(FOUR)
    found = list(rows(data))
    assert list(found[0])[:10] == [
        "prompt",
        "site",
        "layer",
        "position",
        "token",
        "score",
        "effect",
        "stderr",
        "clean",
        "corrupted",
    ]
    assert len(found) == 30 * (7 + 6 + 6)  # no rows of branches below the first block
    row = next(
        it
        for it in found
        if (it["prompt"], it["site"], it["layer"], it["position"]) == ("p2", "mlp_out", 4, 2)
    )
    cell = data.isel(place=7 + 9 + 2).sel(site="mlp_out", layer=4)
    assert row["score"] == pytest.approx(float(cell.score.mean()))
    assert row["effect"] == float(cell.effect)
    assert row["corrupted"] == pytest.approx(float(cell.corrupted.mean()))
    assert row["role"] == "last_subject"
    assert (row["target"], row["top"], row["correct"], row["group"]) == (
        " Paris",
        " Rome",
        False,
        1,
    )
    assert {it["normalised"] for it in found if it["prompt"] == "p3"} == {None}
    alone = next(rows(traced([Traced(subject=(-1, -1), group=-1)], samples=1)))
    assert alone["role"] is alone["group"] is alone["stderr"] is None


def test_three_heat_maps_share_layers_colours_and_clicks() -> None:
    data = traced()
    drawn = figure_of_prompt(data, selected=(3, 2))
    state, mlp, attention = heats(drawn)
    assert {heat.yaxis for heat in heats(drawn)} == {"y"}
    assert len({(heat.zmin, heat.zmax) for heat in heats(drawn)}) == 1
    assert mlp.customdata[4][2] == "4 2"
    np.testing.assert_allclose(mlp.z, data.effect.sel(site="mlp_out").values.T, rtol=1e-6)
    assert [heat.showscale for heat in heats(drawn)] == [False, False, True]
    half = T * float(data.stderr.isel(place=2).sel(site="attn_out", layer=5))
    effect = float(data.effect.isel(place=2).sel(site="attn_out", layer=5))
    assert (
        f"effect {effect:+.3g} ({effect - half:+.3g} to {effect + half:+.3g})"
        in (attention.hovertext[5][2])
    )
    ticks = drawn.layout.xaxis2.ticktext
    assert ticks[1:4] == ("<b>·Eiffel 1</b>", "<b>·Tower 2</b>", "·is 3")
    assert ticks[5] == "·&lt;b&gt; 5"  # a token is no markup
    framed = [shape for shape in drawn.layout.shapes if shape.yref == "y"]
    assert [(shape.x0, shape.y0) for shape in framed] == [(1.5, 2.5)] * 3
    assert state.zmin == -state.zmax  # of both signs: white is 0


def test_the_heading_says_what_was_done() -> None:
    one = said(figure_of_prompt(traced(FOUR), prompt="p2"))
    for part in (
        "Denoising: one clean cell is put into the corrupted run",
        "noise on the subject's embeddings (3 σ, 3 draws)",
        "p(·Paris): clean 0.",
        "total effect +0.8 probability",
        "windows [l−5, l+4], placed as in the reference's code (the paper's text says [l−4, l+5])",
        "repair or undo",
        "top token is ·Rome, not the target ·Paris",
    ):
        assert part in one
    other = said(figure_of_prompt(traced(direction="noising", metric="kl", window=1)))
    assert "Noising" in other
    assert "KL(clean || run)" in other
    assert "one block at a time" in other
    nothing = said(figure_of_prompt(traced(FOUR), prompt="p3"))
    assert "The total effect is about 0 (below 0.001 probability)" in nothing
    assert "about 0" not in one
    replaced = said(figure_of_prompt(traced(corruption="replace", noise=None)))
    assert "token replacement" in replaced


def test_one_sample_has_no_interval_and_one_sign_no_diverging_scale() -> None:
    data = traced(samples=1)
    data["effect"] = abs(data["effect"])
    drawn = figure_of_prompt(data)
    assert " to " not in drawn.data[0].hovertext[3][2]
    assert drawn.data[0].zmin == 0


def test_long_prompts_of_deep_models_stay_light() -> None:
    drawn = figure_of_prompt(traced([Traced(200, (3, 5))], layers=30))
    assert drawn.data[0].hovertext is None
    assert len(drawn.layout.xaxis.ticktext) <= 36


def test_averages_stand_beside_their_spread_and_the_twin() -> None:
    prompts = [Traced(7 + n % 3, (1, 1 + n % 4), n // 2) for n in range(12)]
    data, twin = traced(prompts), traced(prompts, strength=0.01, seed=5)
    drawn = figure_of_roles(data, twin=twin, resamples=100)
    assert "n = 12 prompts in 6 groups" in said(drawn)
    assert "Untrained twin: mean total effect" in said(drawn)
    found = averaged(by_role(data), resamples=100)
    first, control, *_ = heats(drawn)
    assert len(heats(drawn)) == 6
    np.testing.assert_allclose(
        first.z, found["mean"].sel(site="resid_post").transpose("layer", "role"), rtol=1e-6
    )
    assert abs(np.asarray(control.z)).max() < 0.1 * abs(np.asarray(first.z)).max()
    lines = [t for t in drawn.data if t.type == "scatter" and t.text is not None]
    assert len(lines) == 3 * len(ROLES)
    named = next(line for line in lines if "MLP, last subject" in line.hovertemplate)
    cell = found.sel(site="mlp_out", role="last_subject", layer=2)
    assert named.x[1] == float(cell["mean"])
    assert f"95% {float(cell.low):+.3g} to {float(cell.high):+.3g}), n = 12" in named.text[1]
    assert f"80% of prompts {float(cell.below):+.3g}" in named.text[1]
    assert TWIN in str(drawn.layout.annotations)


def test_several_prompts_are_averaged_and_a_named_one_is_shown() -> None:
    data = traced(FOUR)
    averages = said(figure(data, resamples=50))
    assert "mean total effect" in averages
    assert "Dark band" in averages
    assert "band" not in said(figure_of_roles(traced()))  # of one prompt there is none
    assert "Prompt p2, one of 4" in said(figure(data, prompt="p2"))
    assert "Prompt p0, one of 4" in said(figure(data, selected=(2, 1)))
    nobody = traced([Traced(subject=(-1, -1))] * 2)
    assert "Prompt p0, one of 2" in said(figure(nobody))
    assert "total effect" in said(figure(traced()))


def test_no_roles_are_averaged_where_there_are_no_subjects() -> None:
    with pytest.raises(ResultError, match="no prompt of this result has a subject"):
        figure_of_roles(traced([Traced(subject=(-1, -1))] * 2))
    with pytest.raises(ResultError, match="no value 'colour' in this result"):
        figure_of_prompt(traced(), value="colour")


def test_panels_are_the_state_by_position_and_a_tokens_components() -> None:
    data = traced()
    heat, lines = panels(data, position=2)
    assert isinstance(heat, Heat)
    assert isinstance(lines, Lines)
    assert heat.values.shape == (7, 7)
    assert list(lines.lines) == ["state", "MLP", "attention"]
    mlp = lines.lines["MLP"]
    assert mlp.values["layer"].values.tolist() == [1, 2, 3, 4, 5, 6]
    assert mlp.low is not None
    half = T * data.stderr.isel(place=2).sel(site="mlp_out").values[1:]
    np.testing.assert_allclose(mlp.values - mlp.low, half, rtol=1e-6)
    other, single = panels(traced(samples=1), site="attn_out")
    assert isinstance(single, Lines)
    assert single.lines["state"].low is None
    assert other.title == "attention: effect by position"


def test_facts_of_a_cell() -> None:
    data = traced(FOUR)
    found = dict(facts(data, layer=4, prompt="p2", position=2))
    assert found["denoising, p(·Paris)"].startswith("clean 0.")
    assert found["role"] == "last subject"
    assert found["clean run's top token"] == "·Rome, not ·Paris"
    effect = float(data.effect.isel(place=18).sel(site="attn_out", layer=4))
    assert found["effect of attention"].startswith(f"{effect:+.3g} (")
    below = dict(facts(data, layer=0, prompt="p0", position=1))
    assert "effect of state" in below
    assert "effect of MLP" not in below


@pytest.mark.parametrize("direction", ["denoising", "noising"])
def test_the_section_says_what_was_chosen_after_looking(direction: str) -> None:
    data = traced(FOUR, direction=direction)
    found = section(tabled(data))
    total, *largest = found.headlines
    assert total.value == pytest.approx(0.6)  # 0.8, 0.8, 0.8 and 0
    assert [total.low, total.high] == pytest.approx([0.0, 0.8])
    means = averaged(by_role(data))["mean"]
    places = [(role, site) for role in ("last_subject", "last") for site in data.site.values]
    for headline, (role, site) in zip(largest, places, strict=True):
        own = means.sel(role=role, site=site).dropna("layer")
        if (role, site) == ("last", "resid_post"):
            own = own.isel(layer=slice(-1))  # there the total effect, whatever the model
        assert abs(headline.value) == pytest.approx(float(abs(own).max()), abs=1e-6)
        assert f"the largest of {own.size} layers: chosen after looking" in headline.note
    assert [plot.title for plot in found.plots] == [
        "Average indirect effect by token role: state",
        "Average indirect effect by token role: MLP",
        "Average indirect effect by token role: attention",
        "MLP less attention",
    ]
    other, none = found.listings
    assert other.table["prompt"].to_list() == ["p2"]
    assert none.table["prompt"].to_list() == ["p3"]
    assert found.remarks[0].startswith(direction.capitalize())


def test_a_section_without_subjects_has_the_total_effect() -> None:
    nobody = [Traced(subject=(-1, -1), group=-1)] * 3
    found = section(tabled(traced(nobody, samples=1)))
    assert [headline.label for headline in found.headlines] == ["Total effect"]
    assert found.headlines[0].low is not None
    assert not found.plots
    assert "3 of 3 prompts have no subject" in found.remarks[-1]


def test_a_section_of_one_prompt() -> None:
    found: Any = section(tabled(traced()))
    assert {headline.low for headline in found.headlines} == {None}
    assert {headline.note for headline in found.headlines} == {"too few groups for an interval"}
