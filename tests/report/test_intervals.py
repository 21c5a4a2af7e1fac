"""Intervals against scipy's, and summaries over prompts against numpy."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from scipy import stats

from workbench.report.intervals import Interval, mean_interval, median_interval, share_interval
from workbench.report.summaries import at_last_position, means, medians, shares


@pytest.mark.parametrize("n", [2, 3, 10, 400])
def test_mean_is_students(n: int) -> None:
    values = np.random.default_rng(n).normal(3, 2, n)
    found, oracle = mean_interval(values), stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert found.value == pytest.approx(values.mean(), rel=1e-12)
    assert (found.low, found.high) == pytest.approx((oracle.low, oracle.high), rel=1e-10)


@pytest.mark.parametrize(("hits", "n"), [(0, 5), (5, 5), (1, 2), (37, 100), (999, 1000)])
def test_share_is_wilsons(hits: int, n: int) -> None:
    found, oracle = share_interval(hits, n), stats.binomtest(hits, n).proportion_ci(0.95, "wilson")
    assert found.value == hits / n
    assert (found.low, found.high) == pytest.approx((oracle.low, oracle.high), abs=1e-12)


@pytest.mark.parametrize("n", [6, 7, 30, 301])
def test_median_is_between_order_statistics(n: int) -> None:
    values = np.random.default_rng(n).exponential(size=n)
    found = median_interval(values)
    oracle = stats.quantile_test(values, q=np.median(values), p=0.5).confidence_interval(0.95)
    assert found.value == np.median(values)
    assert (found.low, found.high) == (oracle.low, oracle.high)


def test_too_few_values_have_no_interval() -> None:
    assert mean_interval([2.0]) == Interval(2.0, None, None)
    assert share_interval(1, 1) == Interval(1.0, None, None)
    assert median_interval([1.0, 1.0, 2.0, 3.0, 3.0]) == Interval(2.0, None, None)


def test_a_mean_is_cut_at_the_possible_range() -> None:
    values, whole = [0.1, 0.9, 0.95], mean_interval([0.1, 0.9, 0.95])
    assert whole.low is not None
    assert whole.high is not None
    assert whole.low < 0 < 1 < whole.high
    assert mean_interval(values, (0, 1)) == Interval(whole.value, 0, 1)
    assert mean_interval(values, (0, math.inf)) == Interval(whole.value, 0, whole.high)
    assert mean_interval(values, (-5, 5)) == whole


def test_a_mean_that_rounding_put_outside_stays_in_its_interval() -> None:
    assert mean_interval([-1e-9, -1e-9], (0, 1)) == Interval(-1e-9, -1e-9, -1e-9)


def test_no_values_are_refused() -> None:
    for interval in (mean_interval, median_interval):
        with pytest.raises(ValueError, match="no values"):
            interval([])


def table() -> pl.DataFrame:
    """Prompts of 1 to 5 positions in two layers, with missing values."""
    random = np.random.default_rng(0)
    rows = [
        (f"p{prompt}", layer, position, float(random.normal(prompt + layer)))
        for prompt in range(12)
        for layer in range(2)
        for position in range(1 + prompt % 5)
    ]
    frame = pl.DataFrame(rows, schema=["prompt", "layer", "position", "x"], orient="row")
    missing = (pl.col("prompt") == "p3") & (pl.col("layer") == 1)
    return frame.with_columns(x=pl.when(missing).then(None).otherwise("x"))


def test_means_have_prompts_as_their_unit() -> None:
    found = means(table().lazy(), "x", ["layer"])
    pandas = table().to_pandas()
    for layer, value, low, high, n in found.rows():
        within = pandas[pandas.layer == layer].groupby("prompt").x.mean().dropna()
        oracle = stats.ttest_1samp(within, 0).confidence_interval(0.95)
        assert n == len(within) == 12 - layer
        assert (value, low, high) == pytest.approx((within.mean(), oracle.low, oracle.high))


def test_shares_and_medians_of_groups() -> None:
    last = at_last_position(table().lazy())
    pandas = table().to_pandas()
    ends = pandas[pandas.position == pandas.groupby("prompt").position.transform("max")]
    assert last.collect().height == len(ends) == 24
    hits = shares(last.with_columns(hit=pl.col("x") > 6), "hit", ["layer"])
    for layer, value, low, high, n in hits.rows():
        x = ends[ends.layer == layer].x.dropna()
        oracle = stats.binomtest(int((x > 6).sum()), len(x)).proportion_ci(0.95, "wilson")
        assert n == len(x)
        assert (value, low, high) == pytest.approx(((x > 6).mean(), oracle.low, oracle.high))
    for layer, value, *_ in medians(last, "x", ["layer"]).rows():
        assert value == pytest.approx(ends[ends.layer == layer].x.median())


def test_one_prompt_has_a_mean_and_no_interval() -> None:
    one = table().filter(pl.col("prompt") == "p0").lazy()
    assert means(one, "x", ["layer"]).select("low", "high", "n").rows() == [(None, None, 1)] * 2
    assert not math.isnan(means(one, "x", ["layer"])["value"][0])
