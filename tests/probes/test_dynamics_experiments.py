"""Runs, phase diagrams and staircases: what they see, their rows and figures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from probes.dynamics import theory
from probes.dynamics.experiments import PhaseDiagram, Run, Staircase
from workbench.errors import SettingError


def test_a_phase_diagram_crosses_where_the_closed_form_does() -> None:
    found = PhaseDiagram(betas=(0.5, 2.0, 4.0), tokens=16, d=4096, seeds=2, time=8.0)()
    wanted = [theory.crossover(beta, 16) for beta in (0.5, 2.0, 4.0)]
    assert found.curves["crossover"].tolist() == pytest.approx(wanted)
    # Random starts of d = 4096 have cosines of 0.016, not of 0: a few per cent of the time.
    assert np.abs(found.crossings() / np.array(wanted)[:, None] - 1).max() < 0.05
    rows = found.rows()
    assert len(rows) == 3 * 2 * 161
    assert {key for row in rows for key in row} == {
        "beta",
        "seed",
        "time",
        "mean_cosine",
        "order_parameter",
        "energy",
        "clusters",
        "crossover",
        "crossover_from_start",
    }
    heat, dots, curve = found.plot("dark").data
    assert np.array(heat.z).shape == (160, 3)
    assert len(dots.x) == 6
    assert list(curve.y) == pytest.approx(wanted)


def test_where_nothing_crosses_there_is_no_crossing() -> None:
    found = PhaseDiagram(betas=(8.0,), tokens=16, d=64, seeds=2, time=1.0)()
    assert np.isnan(found.crossings()).all()
    _, _, late, _ = found.plot().data
    assert (late.x, late.y, list(late.customdata)) == ((1 / 8,), (1.0,), [[2, 2]])
    assert "t = 1 (2 of 2)" in late.name


def test_the_axis_goes_on_to_crossings_of_the_theory_that_are_near() -> None:
    of = PhaseDiagram(betas=(4.0, 16.0), tokens=16, d=4096, seeds=1, time=2.0)
    found = of()
    near, far = (theory.crossover(beta, 16) for beta in (4.0, 16.0))
    assert 2.0 < near < 8.0 < far
    assert near < 10 ** found.plot().layout.yaxis.range[1] < far


def test_a_start_above_one_half_has_crossed() -> None:
    found = PhaseDiagram(betas=(1.0,), tokens=2, d=2, seeds=1, time=1.0, seed=9)()
    assert found.seen["mean_cosine"][0, 0, 0] > 0.5
    assert found.crossings().tolist() == [[0.0]]
    assert found.curves["crossover_from_start"].tolist() == [0.0]


def test_a_staircase_climbs_as_clusters_meet() -> None:
    found = Staircase(betas=(5.0,), tokens=16, seeds=2, time=300.0)()
    energy, clusters = found.seen["energy"][:, 0], found.seen["clusters"][:, 0]
    assert (np.diff(energy, axis=0) > -1e-9).all()  # rounding, at rest
    assert (clusters[-1] < clusters[0]).all()
    assert (energy <= 1 + 1e-12).all()
    assert len(found.plot().data) == 4


def test_a_run_has_the_closed_form_only_where_there_is_one() -> None:
    plain = Run(betas=2.0, tokens=8, d=8, seeds=1, time=2.0)
    assert len(plain().plot().data) == 2
    for other in (
        Run(betas=2.0, tokens=8, d=8, seeds=1, time=2.0, norm="pre"),
        Run(betas=2.0, tokens=8, d=8, seeds=1, time=2.0, causal=True),
        Run(betas=2.0, tokens=8, d=16, seeds=1, time=2.0, temperature=0.1),
    ):
        assert len(other().plot().data) == 1


@pytest.mark.parametrize("kind", [Run, PhaseDiagram, Staircase])
def test_the_axis_of_unnormalised_time_says_its_unit(kind: type[Run]) -> None:
    shown = kind(betas=(1.0,), tokens=4, d=4, seeds=1, time=1.0, kernel="usa")().plot()
    assert "in units of exp(-beta)" in shown.to_json()


@pytest.mark.parametrize(
    ("kind", "settings", "said"),
    [
        (PhaseDiagram, {"tokens": 1}, "tokens is 1: expected a whole number, at least 2"),
        (PhaseDiagram, {"betas": (1.0, 0.0)}, "expected numbers above 0"),
        (Staircase, {"time": -1.0}, "time is -1.0"),
        (Staircase, {"step": 1.5}, "step is 1.5: expected a number above 0, at most 1"),
        (Run, {"time": True}, "time is True: expected a number above 0"),
        (Run, {"betas": (1.0, True)}, "expected numbers above 0"),
        (Run, {"seed": 1.5}, "seed is 1.5: expected a whole number, at least 0"),
        (Run, {"seed": -1}, "seed is -1: expected a whole number, at least 0"),
        (Run, {"seed": 2**70}, "expected a whole number below 4294967296"),
        (Run, {"causal": 1}, "causal is 1: expected true or false"),
        (Run, {"temperature": "cold"}, "temperature is cold: expected a number, 0 or above"),
        (Run, {"kernel": "gauss"}, "expected one of sa, usa"),
        (Run, {"temperature": -0.1}, "temperature is -0.1: expected a number, 0 or above"),
        (Run, {"temperature": 0.1, "norm": "pre"}, "noise is of tokens on the sphere"),
    ],
)
def test_refusals(kind: type[Run], settings: dict[str, object], said: str) -> None:
    with pytest.raises(SettingError, match=said):
        kind(**settings)()  # type: ignore[arg-type]


def test_a_run_is_paced_step_by_step() -> None:
    seen: list[tuple[int, int]] = []
    experiment = Run(betas=1.0, tokens=3, d=3, seeds=1, time=1.0, step=0.004)
    paced = experiment(lambda *at: seen.append(at))
    assert seen == [(i + 1, 300) for i in range(300)]  # 100 spans of .01, in steps of at most .004
    assert paced.rows() == experiment().rows()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"seed": -1}, "seed is -1"),
        ({"seeds": True}, "seeds is True"),
        ({"temperature": "hot"}, "temperature is hot"),
        ({"device": 3}, "device is 3"),
    ],
)
def test_settings_are_refused_before_the_run(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingError, match=says):
        Run(**settings)


def test_the_phase_diagram_writes_out_its_ticks() -> None:
    drawn = PhaseDiagram(betas=(0.25, 1.0, 8.0), tokens=4, d=8, seeds=1, time=20.0)().plot().layout
    for axis in (drawn.xaxis, drawn.yaxis):
        assert [float(text) for text in axis.ticktext] == pytest.approx(list(axis.tickvals))
    assert list(drawn.xaxis.ticktext) == ["0.2", "0.5", "1", "2"]


@pytest.mark.parametrize("times", [[2.0, 1.0], [-1.0, 1.0], [0.0, float("nan"), 1.0], []])
def test_the_closed_form_refuses_times_that_do_not_rise(times: list[float]) -> None:
    with pytest.raises(SettingError, match="expected finite numbers that rise from 0"):
        theory.equiangular(0.1, times, 1.0, 5)
