"""Averages by role against plain loops, and their intervals against scipy's bootstrap."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from scipy import stats

from probes.causal.roles import ROLES, role_of
from probes.tracing.averages import averaged, by_role, difference, of_rows
from probes.tracing.rows import rows
from tests.probes.traced import FOUR, Traced, traced

DATA = traced(FOUR)


def names(length: int, first: int, last: int) -> list[str]:
    return [ROLES[role_of(i, length, first, last)] for i in range(length)]


def test_roles_of_tokens() -> None:
    assert names(8, 1, 3) == [
        "before_subject",
        "first_subject",
        "middle_subject",
        "last_subject",
        "first_after",
        "further",
        "further",
        "last",
    ]
    assert names(3, 1, 1) == ["before_subject", "last_subject", "last"]  # one token; right behind
    assert names(2, 0, 1) == ["first_subject", "last_subject"]  # a subject to the prompt's end


def test_a_prompts_tokens_of_a_role_count_once() -> None:
    values = by_role(DATA)
    for n, prompt in enumerate(values["prompt"].values):
        for r, role in enumerate(ROLES):
            here = (DATA["prompt"].values == prompt) & (DATA["role"].values == r)
            cells = DATA["effect"].values[here]
            found = values.sel(role=role).values[n]
            if here.any():
                np.testing.assert_allclose(found, cells.mean(0), rtol=1e-12)
            else:
                assert np.isnan(found).all()


def test_groups_are_drawn_as_a_loop_draws_them() -> None:
    values = by_role(DATA)
    found = averaged(values, resamples=200, seed=3)
    cell = {"role": "last_subject", "site": "mlp_out", "layer": 2}
    own = values.sel(cell).values
    group = values["group"].values
    draws = np.random.default_rng(3).integers(0, 3, (200, 3))
    means = [np.concatenate([own[group == g] for g in row]).mean() for row in draws]
    ends = np.quantile(means, [0.025, 0.975])
    np.testing.assert_allclose([found.low.sel(cell), found.high.sel(cell)], ends, rtol=1e-12)
    assert float(found["mean"].sel(cell)) == pytest.approx(own.mean(), rel=1e-12)
    assert int(found.n.sel(cell)) == 4
    assert int(found.groups.sel(cell)) == 3
    middle = found.sel(role="middle_subject", site="mlp_out", layer=2)
    assert int(middle.n) == 2  # the others have no such token
    assert np.isfinite(middle.low)
    assert found["mean"].sel(site="mlp_out", layer=0).isnull().all()


def test_intervals_are_scipys_where_every_prompt_is_its_own_group() -> None:
    alone = traced([Traced(group=n) for n in range(20)])
    values = by_role(alone).sel(role="last").sortby("group")
    found = averaged(values, resamples=500, seed=11)
    for site, layer in (("resid_post", 5), ("attn_out", 4)):
        own = values.sel(site=site, layer=layer).values
        oracle = stats.bootstrap(
            (own,), np.mean, n_resamples=500, method="percentile", rng=np.random.default_rng(11)
        ).confidence_interval
        cell = found.sel(site=site, layer=layer)
        # The same draws; sums run in another order: some eps of 20 terms near 1.
        np.testing.assert_allclose([cell.low, cell.high], oracle, rtol=1e-13)


def test_differences_are_paired() -> None:
    values = by_role(DATA)
    one = {"role": "last_subject", "site": "mlp_out"}
    other = {"role": "last", "site": "attn_out"}
    found = difference(values, one, other, resamples=100)
    pairs = values.sel(one).values - values.sel(other).values
    np.testing.assert_allclose(found["mean"][1:], np.nanmean(pairs[:, 1:], 0), rtol=1e-12)
    assert found.n.values[1:].tolist() == [3] * 6  # the last prompt ends with its subject
    same = difference(values, one, one, resamples=50)
    assert same.low.values[1:].tolist() == same.high.values[1:].tolist() == [0.0] * 6


def test_one_group_has_no_interval() -> None:
    found = averaged(by_role(traced(FOUR[:2])))
    assert np.isnan(found.low).all()
    assert np.isfinite(found["mean"].sel(role="last", layer=3)).all()


def test_rows_give_what_the_dataset_gives() -> None:
    left, right = by_role(DATA), of_rows(pl.LazyFrame(list(rows(DATA))))
    same = {name: left[name].values for name in left.dims}
    np.testing.assert_allclose(right.sel(same).transpose(*left.dims), left, rtol=1e-12)
    assert right["group"].values.tolist() == left["group"].values.tolist()
