"""The logit lens' section against numpy over the dataset that its rows come from."""

from __future__ import annotations

from functools import cache

import numpy as np
import polars as pl
import pytest
import torch
from scipy import stats

import workbench as wb
from lenses import LogitLens
from tests.tiny import model
from workbench.report.sections import Section
from workbench.report.tables import frame

N = 30
PROMPTS = [
    wb.Prompt(f"prompt {n} " + "x" * (n % 4), id=f"p{n}", target=chr(97 + n % 9), foil="z")
    for n in range(N)
]


@cache
def measured(**settings: object) -> wb.Result:
    return LogitLens(**settings)(model("gpt2", torch.float32), PROMPTS)


def section_of(result: wb.Result) -> Section:
    return LogitLens.section(frame(result.rows()).lazy())


def last_places() -> np.ndarray:
    """Index of each prompt's last place, prompts in their order."""
    names = measured().data.prompt.values
    return np.array([np.flatnonzero(names == prompt.id)[-1] for prompt in PROMPTS])


def plot(section: Section, title: str) -> pl.DataFrame:
    (found,) = [plot for plot in section.plots if plot.title == title]
    assert f"n = {N} prompts" in found.caption
    return found.table


def test_headlines() -> None:
    data = measured().data.sel(site="resid_post", layer=3).isel(place=last_places())
    found = {one.label: one for one in section_of(measured()).headlines}
    hits = found["Top token is the target"]
    rank = data.target_rank.values
    share = stats.binomtest(int((rank == 1).sum()), N).proportion_ci(0.95, "wilson")
    assert (hits.value, hits.low, hits.high, hits.n) == pytest.approx(
        ((rank == 1).mean(), share.low, share.high, N)
    )
    mean = found["log p(target)"]
    oracle = stats.ttest_1samp(data.target_logprob.values, 0).confidence_interval(0.95)
    assert (mean.low, mean.high) == pytest.approx((oracle.low, oracle.high))
    assert found["Rank of the target"].value == np.median(rank)
    contrast = (data.target_logprob - data.foil_logprob).values
    assert found["log p(target) - log p(foil)"].value == pytest.approx(contrast.mean())
    settled = measured().data.settling_layer.sel(site="resid_post").isel(place=last_places())
    assert found["Settling layer of the top token"].value == pytest.approx(settled.values.mean())


def test_intervals_of_few_prompts_stay_in_the_possible_range() -> None:
    """Spread as wide as these, Student's intervals would leave it at either end."""
    rows = frame(measured().rows()).filter(pl.col("prompt").is_in(["p0", "p1"]))
    spread = pl.when(pl.col("prompt") == "p0").then(0.01)
    rows = rows.with_columns(
        entropy=spread.otherwise(2.0),
        kl=spread.otherwise(2.0),
        target_logprob=-spread.otherwise(9.0),
        settling_layer=pl.when(pl.col("prompt") == "p0").then(0).otherwise(3),
    )
    section = LogitLens.section(rows.lazy())
    found = {one.label: one for one in section.headlines}
    assert found["Entropy of the prediction"].low == 0
    assert found["log p(target)"].high == 0
    settled = found["Settling layer of the top token"]
    assert (settled.low, settled.high) == (0, 3)
    tables = {one.title: one.table for one in section.plots}
    assert tables["How sure each layer is"]["low"].to_list() == [0] * 4
    assert tables["How far each layer is from the last"]["low"].to_list() == [0] * 4
    assert tables["How likely the target is"]["high"].to_list() == [0] * 4


def test_plots_of_the_target_are_taken_at_the_last_position() -> None:
    section, data = section_of(measured()), measured().data.isel(place=last_places(), site=0)
    shares = plot(section, "When the target is the top token")
    assert shares["value"].to_list() == pytest.approx((data.target_rank == 1).mean("place").values)
    logprobs = plot(section, "How likely the target is")
    assert logprobs["value"].to_list() == pytest.approx(data.target_logprob.mean("place").values)
    ranks = plot(section, "Where the target ranks")
    assert ranks["value"].to_list() == np.median(data.target_rank, axis=1).tolist()


def test_entropy_and_kl_are_means_within_and_then_over_prompts() -> None:
    data = measured().data.isel(site=0)
    for title, name in {
        "How sure each layer is": "entropy",
        "How far each layer is from the last": "kl",
    }.items():
        within = [data[name].values[:, data.prompt.values == p.id].mean(1) for p in PROMPTS]
        found = plot(section_of(measured()), title)["value"].to_list()
        # KL of the last layer against itself is 0 up to float32.
        assert found == pytest.approx(np.mean(within, axis=0).tolist(), rel=1e-6, abs=1e-6)


def test_settling_layers_are_counted() -> None:
    settled = measured().data.settling_layer.isel(site=0, place=last_places()).values
    found = plot(section_of(measured()), "Where predictions settle")
    assert dict(found.select("layer", "prompts").rows()) == {
        layer: int((settled == layer).sum()) for layer in set(settled.tolist())
    }


def test_prompts_that_stand_out() -> None:
    least, latest, turned = section_of(measured()).listings
    final = measured().data.isel(site=0, place=last_places()).sel(layer=3)
    order = np.argsort(final.target_logprob.values)[:8]
    assert least.table["prompt"].to_list() == [PROMPTS[i].id for i in order]
    settled = final.settling_layer.values
    assert latest.table["settling_layer"].to_list() == sorted(settled, reverse=True)[:8]
    before = measured().data.isel(site=0, place=last_places()).sel(layer=2).kl.values
    assert turned.table["prompt"].to_list() == [PROMPTS[i].id for i in np.argsort(-before)[:8]]
    assert turned.table["kl"].to_list() == pytest.approx(sorted(before.tolist())[::-1][:8])


def test_several_sites_are_lines_of_their_own() -> None:
    section = section_of(measured(sites=("resid_post", "mlp_out")))
    figures = {one.title: one.figure for one in section.plots}
    names = {trace.name for trace in figures["How likely the target is"].data if trace.name}
    assert names == {"resid_post", "mlp_out"}
    # An entropy of contributions is not defined, so it has no line.
    entropy = plot(section, "How sure each layer is")
    assert entropy["site"].unique().to_list() == ["resid_post"]


def test_without_targets_nothing_is_said_of_them() -> None:
    texts = [prompt.text for prompt in PROMPTS]
    section = section_of(LogitLens()(model("gpt2", torch.float32), texts))
    assert section.remarks == ["No prompt has a target, so nothing is said of one."]
    said = [one.label for one in section.headlines] + [one.title for one in section.plots]
    assert said
    assert not [words for words in said if "target" in words.lower()]


def test_without_divergences_and_with_one_prompt() -> None:
    lens = LogitLens(divergences=False, positions="last")
    section = section_of(lens(model("gpt2", torch.float32), PROMPTS[:1]))
    assert "How far each layer is from the last" not in [one.title for one in section.plots]
    assert {(one.low, one.high, one.n) for one in section.headlines} == {(None, None, 1)}
    assert {one.note for one in section.headlines} == {"too few prompts for an interval"}
