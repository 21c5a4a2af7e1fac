"""Direct attribution's section against numpy and scipy over the dataset that its rows come from."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

import workbench as wb
from lenses import DirectAttribution
from tests.tiny import model
from workbench.report.sections import Section
from workbench.report.tables import frame

N = 12
PROMPTS = [
    wb.Prompt(f"prompt {n}", id=f"p{n:02}", target=chr(97 + n), foil="z" if n < 10 else None)
    for n in range(N - 1)
] + [wb.Prompt("no target", id="p99")]


def test_the_section_says_who_writes_the_logit() -> None:
    result = DirectAttribution()(model("gpt2", torch.float32), PROMPTS)
    section = DirectAttribution.section(frame(result.rows()).lazy())
    names = result.data.prompt.values
    last = result.data.isel(place=[np.flatnonzero(names == prompt.id)[-1] for prompt in PROMPTS])
    logit, worst = section.headlines
    oracle = stats.ttest_1samp(last.logit.values, 0).confidence_interval(0.95)
    assert (logit.value, logit.low, logit.high, logit.n) == pytest.approx(
        (last.logit.values.mean(), oracle.low, oracle.high, N), rel=1e-5
    )
    assert worst.value == pytest.approx(float(abs(result.data.residual).max()))
    assert "target - foil in 10 prompts; target - mean of the vocabulary in 1 prompts" in said(
        section
    )
    assert "own top token - mean of the vocabulary in 1 prompts" in said(section)
    (plot,), (heads,) = section.plots, section.listings
    for row in plot.table.iter_rows(named=True):
        name = {"embedding": "embed", "attention": "attn_out", "MLP": "mlp_out"}[row["component"]]
        found = last.contribution.sel(component=name, layer=row["layer"]).values
        assert row["value"] == pytest.approx(found.mean(), abs=1e-6)
    means = last.head_contribution.mean("place")
    assert heads.table.height == 6
    best = heads.table.row(0, named=True)
    assert abs(best["contribution"]) == pytest.approx(float(abs(means).max()), abs=1e-6)
    chosen = last.head_contribution.sel(layer=best["layer"], head=best["head"]).values
    interval = stats.ttest_1samp(chosen, 0).confidence_interval(0.95)
    assert (best["low"], best["high"]) == pytest.approx((interval.low, interval.high), abs=1e-5)
    assert "chosen among 6 heads" in heads.caption


def test_without_heads_there_is_no_list_of_them() -> None:
    result = DirectAttribution(split="components")(model("gpt2", torch.float32), PROMPTS[:2])
    assert not DirectAttribution.section(frame(result.rows()).lazy()).listings


def said(section: Section) -> str:
    return " ".join(section.remarks)
