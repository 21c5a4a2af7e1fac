"""The overlay: it finds what made a curve, and says where nothing of the theory did."""

from __future__ import annotations

import numpy as np
import pytest

from probes.dynamics import theory
from probes.dynamics.overlay import BETAS, STEPS, overlay
from workbench.errors import SettingError

LAYERS = np.arange(9)


def curves(beta: float, dt: float, noise: float, prompts: int = 24) -> np.ndarray:
    random = np.random.default_rng(1)
    first = random.uniform(0.02, 0.2, prompts)
    made = [theory.equiangular(g, LAYERS * dt, beta, 20) for g in first]
    return np.array(made)[:, : len(LAYERS)] + noise * random.standard_normal(
        (prompts, len(LAYERS))
    ) * (LAYERS > 0)


@pytest.mark.parametrize("held", ["prompts", "late"])
def test_it_finds_beta_and_dt_of_a_curve_that_the_theory_made(held: str) -> None:
    found = overlay(curves(4.0, 0.4, 0.01), 20, held=held, twin=np.full((24, 9), 0.5))  # type: ignore[arg-type]
    # A step of the grid on either side: 14% of beta, 10% of dt; both trade against each other.
    assert found.beta.value == pytest.approx(4.0, rel=0.2)
    assert found.dt.value == pytest.approx(0.4, rel=0.2)
    assert found.beta.low <= 4.6  # type: ignore[operator]
    assert found.beta.high >= 3.4  # type: ignore[operator]
    assert found.fits
    assert found.verdict.startswith("fits")
    # The noise of 0.01, the grid's steps on top.
    assert found.errors["theory"].value < 0.03 < found.errors["line"].value
    assert np.abs(found.fitted - found.measured).max() < 0.1


def test_the_theory_at_a_grid_point_is_the_solved_law() -> None:
    beta, dt = float(BETAS[40]), float(STEPS[60])
    made = np.array([theory.equiangular(g, LAYERS * dt, beta, 20) for g in (-0.01, 0.0, 0.3)])
    found = overlay(made, 20)
    assert (found.beta.value, found.dt.value) == (beta, dt)
    # Trapezia over 2000 intervals of width 0.014, and straight lines between: width^2 / 8.
    assert np.abs(found.fitted - made).max() < 5e-5


def test_a_curve_that_falls_does_not_fit() -> None:
    random = np.random.default_rng(0)
    shape = np.array([0.1, 0.3, 0.4, 0.35, 0.25, 0.2, 0.15])
    found = overlay(shape + 0.01 * random.standard_normal((12, 7)), 20)
    assert not found.fits
    assert "does not fit" in found.verdict
    assert "falls (by 0.0" in found.verdict
    rising = curves(4.0, 0.3, 0.001)
    rising[:, -1] = rising[:, -2] - 0.02  # better than a line all the same
    dented = overlay(rising, 20)
    assert dented.errors["theory"].value < dented.errors["line"].value
    assert not dented.fits
    assert "into layer 8" in dented.verdict
    cut = overlay(rising[:, 2:], 20, first=2)
    assert "into layer 8" in cut.verdict
    assert [row["layer"] for row in cut.rows()[:7]] == list(range(2, 9))
    assert list(cut.plot().data[-1].x) == list(range(2, 9))
    fallen = overlay(shape[::-1][2:] * np.ones((4, 1)), 20)
    assert not fallen.fits


def test_a_straight_rise_does_not_fit() -> None:
    random = np.random.default_rng(0)
    line = 0.1 + 0.05 * LAYERS + 0.005 * random.standard_normal((12, 9)) * (LAYERS > 0)
    found = overlay(line, 20)
    assert not found.fits
    assert "a straight line" in found.verdict
    assert found.gain.high < 0  # type: ignore[operator]


def test_a_twin_that_does_the_same_is_no_evidence() -> None:
    made = curves(4.0, 0.4, 0.01)
    found = overlay(made, 20, twin=made + 0.001)
    assert not found.fits
    assert "the untrained twin" in found.verdict


def test_one_prompt_has_late_layers_but_no_interval() -> None:
    found = overlay(curves(4.0, 0.4, 0.0, prompts=1), 20, held="late")
    assert found.beta.low is None
    assert found.cut == 6
    assert {row["twin"] for row in found.rows()} == {None}
    assert len(found.rows()) == 9
    words = found.plot().layout.title.text
    assert "held-out layers after 6 (shaded)" in words
    late = overlay(curves(4.0, 0.4, 0.0, prompts=1)[:, 2:], 20, held="late", first=2)
    assert late.cut == 6  # of layers 3 to 8 the last two are held out
    (shaded,) = late.plot().layout.shapes
    assert (shaded.x0, shaded.x1) == (6.5, 8.5)


@pytest.mark.parametrize(
    ("twins", "said"), [(1, "untrained twin"), (3, "mean of 3 untrained twins")]
)
def test_the_figure_says_of_how_many_twins_a_curve_is(twins: int, said: str) -> None:
    made = curves(4.0, 0.4, 0.01, prompts=4)
    names = [one.name for one in overlay(made, 20, twin=made, twins=twins).plot().data]
    assert names[-1] == f"{said}, mean of 4 prompts"


def test_refusals() -> None:
    good = curves(1.0, 0.2, 0.0, prompts=3)
    for bad, said in (
        (good[0], "expected \\[prompts"),
        (good + 2, "prompt 0, layer 0"),
        (good * 0 - 1 / 19, "layer 0 is no mean cosine of 20 tokens that move: -0.0526"),
        (good[:1], "held='late'"),
    ):
        with pytest.raises(SettingError, match=said):
            overlay(bad, 20)
    with pytest.raises(SettingError, match="twin has shape"):
        overlay(good, 20, twin=good[:2])
    with pytest.raises(SettingError, match="expected prompts or late"):
        overlay(good, 20, held="layers")  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="at least 2"):
        overlay(good, 1)
