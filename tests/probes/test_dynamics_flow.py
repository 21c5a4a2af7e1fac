"""Whole runs against closed forms, quadratures, another library, and theorems."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from scipy.special import ive
from torch import Tensor
from torchdiffeq import odeint

from probes.dynamics import theory
from probes.dynamics.field import Field, Kernel
from probes.dynamics.flow import Law, Method, Noise, advance, record
from probes.dynamics.linear import fixed_point, flow_map, push
from probes.dynamics.observables import clusters, energy, mean_cosine, order_parameter
from probes.dynamics.presets import coupling_schedule, mean_field_init
from probes.dynamics.sphere import (
    angles,
    equiangular,
    near_uniform,
    on_circle,
    project,
    scattered,
    unit,
)
from probes.dynamics.splitting import lie_trotter, strang
from workbench.errors import SettingError

EPS = torch.finfo(torch.float64).eps
KERNELS: tuple[Kernel, ...] = ("sa", "usa")


def exact(law: Law, x: Tensor, time: float) -> Tensor:
    """torchdiffeq's adaptive eighth order, in R^d and without any normalising of ours."""
    ends = torch.tensor([0.0, time], dtype=x.dtype)
    # A step ends at the time asked for: between steps it interpolates, at a lower order.
    options = {"step_t": ends[1:]}
    found: Tensor = odeint(law, x, ends, method="dopri8", rtol=1e-12, atol=1e-14, options=options)[
        -1
    ]
    return found


def distances(x: Tensor, y: Tensor) -> float:
    return float((x - y).norm(dim=-1).max())


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("heun", 2), ("rk4", 4)])
def test_steps_on_the_sphere_have_their_order(method: Method, order: int) -> None:
    x, field = scattered(8, 5), Field(beta=2.0)
    wanted = exact(field, x, 2.0)
    one, two = (distances(advance(field, x, 2.0, s, method=method), wanted) for s in (32, 64))
    # The next term of the error is a few per cent of the first at these steps.
    assert math.log2(one / two) == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize("norm", ["pre", "peri"])
def test_steps_in_space_agree_with_another_library(norm: str) -> None:
    x, field = 1.5 * scattered(2, 5, 4), Field(beta=2.0, norm=norm)  # type: ignore[arg-type]
    found = advance(field, x, 2.0, 400, method="rk4", sphere=False)
    assert distances(found, exact(field, x, 2.0)) < 1e-10  # (2/400)^4 times a constant below 1


@pytest.mark.parametrize("kernel", KERNELS)
def test_an_equiangular_start_stays_equiangular(kernel: Kernel) -> None:
    times = [0.0, 0.5, 2.0, 4.0]
    for beta in (0.0, 1.0, 4.0):
        field = Field(beta=beta, kernel=kernel)
        found = record(
            field, equiangular(5, 5, 0.1), times, mean_cosine, longest=0.01, method="rk4"
        )
        wanted = theory.equiangular(0.1, times, beta, 5, kernel)
        assert np.abs(found.numpy() - wanted).max() < 1e-10  # 0.01^4 / 120 of RK4


def test_two_tokens_meet_by_the_half_angle() -> None:
    x = on_circle(torch.tensor([0.0, 2.5], dtype=torch.float64))
    moved = advance(Field(beta=0), x, 1.0, 2048, method="rk4")
    first, second = angles(moved)
    assert abs(float(second - first) - float(theory.two_tokens(2.5, 1.0))) < 5e-15


def test_at_beta_0_all_tokens_move_by_one_moebius_map() -> None:
    start = torch.linspace(-2.5, 1.7, 7, dtype=torch.float64) ** 3 / 6
    omega = 0.7
    field = Field(beta=0, frequencies=torch.full((7,), omega, dtype=torch.float64))
    x = on_circle(start)
    moved = advance(field, x, 2.0, 1500, method="rk4")

    def cross_ratio(y: Tensor) -> complex:
        a, b, c, d = (complex(*one) for one in y[:4].tolist())
        return (a - c) * (b - d) / ((a - d) * (b - c))

    assert abs(cross_ratio(moved) / cross_ratio(x) - 1) < 7e-12
    wanted = on_circle(torch.from_numpy(theory.watanabe_strogatz(start.numpy(), 2.0, omega)))
    assert distances(moved, wanted) < 9e-12


@pytest.mark.parametrize("kernel", KERNELS)
def test_tokens_of_a_half_sphere_meet_at_rate_1(kernel: Kernel) -> None:
    x = scattered(6, 4, hemisphere=True)
    law = Field(beta=1.0, kernel=kernel)

    def spread(y: Tensor) -> Tensor:
        return (y - unit(y.mean(0))).norm()

    found = record(law, x, [0.0, 14.0, 15.0], spread, longest=0.02, method="rk4")
    # What is left of the quadratic terms is e^{-28}, RK4's error of the rate 0.02^4 / 120.
    slope = float((found[2] / found[1]).log())
    assert slope == pytest.approx(-theory.HEMISPHERE_RATE, abs=1e-5)


def test_causal_tokens_follow_the_first() -> None:
    x = scattered(5, 3)
    law = Field(beta=1.0, causal=True)
    found = record(law, x, [0.0, 16.0, 17.0], lambda y: y, longest=0.05, method="rk4")
    assert found[-1, 0].equal(found[0, 0])
    gap = (found[:, 1] - found[:, 0]).norm(dim=-1)
    # The second token's rate 1/2 is reached up to terms of e^{-16}.
    assert float((gap[2] / gap[1]).log()) == pytest.approx(-0.5, abs=1e-5)


@pytest.mark.parametrize("norm", ["pre", "peri"])
def test_before_normed_branches_tokens_meet_by_a_power(norm: str) -> None:
    law = Field(beta=1.0, norm=norm)  # type: ignore[arg-type]
    x = scattered(5, 4, hemisphere=True)
    found = record(
        law, x, [0.0, 400.0, 800.0], lambda y: 1 - mean_cosine(y), longest=0.5, sphere=False
    )
    # Norms grow as t, up to a constant: corrections are of order 1/400.
    assert float((found[2] / found[1]).log2()) == pytest.approx(-2, abs=0.02)


@pytest.mark.parametrize("kernel", KERNELS)
def test_two_clusters_take_the_time_of_the_quadrature(kernel: Kernel) -> None:
    start = torch.tensor([0.0, 0.0, 0.0, 1.5], dtype=torch.float64)
    for beta in (1.0, 4.0):
        time = theory.merging_time(1.5, 0.5, 0.75, beta, kernel)
        steps = math.ceil(time / 0.01)
        moved = advance(
            Field(beta=beta, kernel=kernel), on_circle(start), time, steps, method="rk4"
        )
        turned = angles(moved)
        assert float(turned[3] - turned[0]) == pytest.approx(0.5, abs=1e-8)


def test_a_near_uniform_circle_first_makes_as_many_clusters_as_its_fastest_mode() -> None:
    assert [theory.most_unstable(beta) for beta in (1.0, 4.0, 9.0)] == [1, 3, 4]
    x = near_uniform(6, 32, spread=1e-3)
    moved = advance(Field(beta=9.0, kernel="usa"), x, 150.0, 1500)
    counts = clusters(moved).tolist()
    assert sorted(counts)[len(counts) // 2] == 4  # "about": the median of six starts


def test_every_start_of_high_dimension_follows_the_crossover() -> None:
    beta, n = 2.0, 16
    time = theory.crossover(beta, n)
    assert theory.equiangular(0.0, [time], beta, n)[0] == pytest.approx(0.5, abs=1e-10)
    found = mean_cosine(advance(Field(beta=beta), scattered(3, n, 2048), time, 100))
    # A cosine of random directions has standard deviation 1/sqrt(d) = 0.022, a mean of 120 a tenth of it;
    # its disturbance grows with the slope of gamma(t), which is at most about 6 here.
    assert (found - 0.5).abs().max() < 0.04


def test_a_crossover_that_is_past_or_out_of_reach() -> None:
    assert theory.crossover(1.0, 2, start=0.7) == 0
    assert np.isnan(theory.crossover(1.0, 2, start=-1.0))  # rests
    for kernel in KERNELS:
        # e^700 is a time still, e^1000 no float64
        assert 1e290 < theory.crossover(700.0, 32, kernel=kernel) < 1e308
        assert np.isnan(theory.crossover(1000.0, 32, kernel=kernel))


def test_an_ellipsoid_is_a_sphere() -> None:
    """Abella, Silvestri, Tabuada, theorem 3.2."""
    root = torch.diag(torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)) + 0.1
    metric = root @ root
    sphere = scattered(6, 3)
    x = sphere @ torch.linalg.inv(root)

    def law(t: float, y: Tensor) -> Tensor:
        force = torch.softmax(2.0 * (y @ metric @ y.mT), -1) @ y
        return force - ((y @ metric) * force).sum(-1, keepdim=True) * y

    moved = advance(Field(beta=2.0), sphere, 2.0, 2000, method="rk4")
    assert distances(exact(law, x, 2.0) @ root, moved) < 3e-12
    path = record(
        Field(beta=2.0), sphere, [0.1 * i for i in range(40)], lambda y: energy(y, 2.0), longest=0.1
    )
    assert (path.diff() > 0).all()


def test_theorems_on_where_tokens_end() -> None:
    """Abella, Silvestri, Tabuada: 4.1 (half sphere), 5.1 (causal, in time), 6.1 (symmetric values)."""
    q, k = scattered(4, 4, seed=1), scattered(4, 4, seed=2)
    met = advance(Field(beta=1.0, q=q, k=k), scattered(6, 4, hemisphere=True), 30.0, 300)
    # rate 1: e^{-60} is below the rounding of unit vectors and of their products, of 4 terms each
    assert abs(1 - mean_cosine(met)) < 2 * 4 * EPS

    def swinging(t: float, x: Tensor) -> Tensor:
        return Field(beta=1.0, q=q * math.cos(t), k=k, causal=True)(t, x)

    x = scattered(6, 4)
    followed = advance(swinging, x, 120.0, 1200)
    # The second token is the last, at rate 1/2: e^{-60}. A step of 0.1 rounds by 2 eps, of which the next
    # ones take off 5% each.
    assert distances(followed, x[:1]) < 2 * EPS / 0.05

    values = torch.diag(torch.tensor([2.0, 1.0, 0.5, -0.5], dtype=torch.float64))
    drawn = advance(
        Field(beta=1.0, v=values, causal=True), scattered(6, 4, hemisphere=True), 60.0, 1200
    )
    # Rate 2 - 1, from at most sqrt(2) away: e^{-60}, so that only the first axis' rounding is left.
    assert distances(drawn, torch.eye(4, dtype=torch.float64)[:1]) < 4 * EPS


def test_noise_orders_the_circle_only_below_a_temperature() -> None:
    crossing = [k for k in np.arange(1.99, 2.01, 0.001) if theory.noisy_order(k) > 1e-3]
    assert crossing[0] == pytest.approx(2, abs=0.002)
    for kappa in (2.001, 2.5, 4.0, 50.0, 1e8):
        r = theory.noisy_order(kappa)
        assert ive(1, kappa * r) / ive(0, kappa * r) == pytest.approx(
            r, abs=1e-11
        )  # brentq's 2e-12
    # r^2 is kappa - 2 there up to a share of that order; brentq's 2e-12 of 1e-4 is 2e-8.
    for over in (1e-15, 1e-10, 0.9e-8, 1.1e-8):
        kappa = 2 + over
        assert theory.noisy_order(kappa) == pytest.approx(math.sqrt(kappa - 2), rel=1e-6)

    def seen(kappa: float) -> float:
        noise = Noise(1 / kappa, seed=3)
        x = on_circle(
            0.5
            * torch.randn(6_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        )
        times = [0.0, *torch.linspace(6, 36, 31).tolist()]
        found = record(Field(beta=0), x, times, order_parameter, longest=0.1, noise=noise)
        return float(found[1:].mean())

    # A single reading scatters by about 0.5/sqrt(6,000); 31 of them, about two times apart, by a fifth.
    assert seen(4.0) == pytest.approx(theory.noisy_order(4.0), abs=0.004)
    assert seen(1.0) < 0.02  # sqrt(pi / (4 n)) without coupling, twice the variance at kappa = 1


def test_noise_alone_is_brownian_motion_on_the_sphere() -> None:
    x = scattered(20_000, 4)
    moved = advance(lambda t, y: torch.zeros_like(y), x, 0.5, 50, noise=Noise(0.3))
    # E <x(t), x(0)> = e^{-(d-1) T t}; standard error below 1/sqrt(4 n).
    assert float((moved * x).sum(-1).mean()) == pytest.approx(math.exp(-3 * 0.3 * 0.5), abs=0.01)


def test_lorentzian_frequencies_leave_the_known_order() -> None:
    n, width, coupling = 2000, 0.25, 1.0
    levels = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    frequencies = width * torch.tan(math.pi * (levels - 0.5))
    eye = torch.eye(2, dtype=torch.float64)
    law = Field(beta=0, v=coupling * eye, frequencies=frequencies)
    x = on_circle(
        0.5 * torch.randn(n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    )
    times = [0.0, *torch.linspace(30, 60, 31).tolist()]
    found = record(law, x, times, order_parameter, longest=0.1, method="rk4")
    # Fluctuations of finite n, about 1/sqrt(n).
    assert float(found[1:].mean()) == pytest.approx(
        theory.lorentzian_order(coupling, width), abs=0.01
    )


def test_fixed_points_with_their_spectra() -> None:
    n, d = 4, 3
    met = fixed_point(Field(beta=2.0), unit(scattered(1, d) + 0.05 * scattered(n, d, seed=1)))
    assert met.residual < 1e-12
    assert met.unstable == 0
    real = met.spectrum.real.sort().values
    wanted = torch.tensor([-1.0] * ((n - 1) * (d - 1)) + [0.0] * (d - 1), dtype=torch.float64)
    # A symmetric matrix: its eigenvalues move by no more than its norm does, for which n (d-1) times an
    # entry will do. An entry is a sum of n d terms below 1; off the fixed point, 2 beta times the residual.
    size = n * (d - 1)
    assert (real - wanted).abs().max() < size * (n * d * EPS + 2 * 2.0 * met.residual)
    poles = on_circle(torch.tensor([0.1, -0.1, math.pi + 0.1, math.pi - 0.1], dtype=torch.float64))
    saddle = fixed_point(Field(beta=3.0), poles)
    assert saddle.residual < 1e-12
    assert saddle.unstable == 1
    for find in (fixed_point, partial(flow_map, time=1.0, steps=5)):
        with pytest.raises(SettingError, match="one system"):
            find(Field(), scattered(2, 4, 3))
        with pytest.raises(SettingError, match="norm='pre'"):
            find(Field(norm="pre"), scattered(4, 3))


def test_the_flow_goes_back_as_far_as_it_is_conditioned() -> None:
    field, x = Field(beta=2.0), scattered(4, 3)
    found = flow_map(field, x, 2.0, 50)
    assert found.inverse_error < 1e-5  # (2/50)^4, times what the way back magnifies
    assert 0 < found.singular_values[-1] < math.exp(-1)
    tilt = project(x, scattered(4, 3, seed=5))
    h = 1e-5
    ahead, behind = (advance(field, x + s * h * tilt, 2.0, 50, method="rk4") for s in (1, -1))
    slope = push(lambda y: advance(field, y, 2.0, 50, method="rk4"), x, tilt)[1]
    assert distances((ahead - behind) / (2 * h), slope) < 1e-8  # h^2 and rounding over h
    assert slope.norm() <= tilt.norm() * found.singular_values[0]
    assert slope.norm() >= tilt.norm() * found.singular_values[-1]


def test_a_split_step_is_off_by_the_bracket_and_strang_by_its_substeps() -> None:
    attention = Field(beta=2.0)
    weights = scattered(4, 4, seed=3)

    def mlp(t: float, x: Tensor) -> Tensor:
        return project(unit(x), torch.tanh(2 * x @ weights.mT))

    def both(t: float, x: Tensor) -> Tensor:
        return attention(t, x) + mlp(t, x)

    x, h = scattered(5, 4), 1e-3
    first: Callable[[Tensor], Tensor] = lambda y: attention(0, y)  # noqa: E731
    second: Callable[[Tensor], Tensor] = lambda y: mlp(0, y)  # noqa: E731
    off = lie_trotter(attention, mlp, x, h, "rk4") - advance(both, x, h, 1, method="rk4")
    bracket = push(second, x, first(x))[1] - push(first, x, second(x))[1]
    wanted = h**2 / 2 * bracket
    assert (off - wanted).norm() / wanted.norm() < 2e-3  # the next term: 1.86 h here

    def error(way: Callable[..., Tensor], steps: int, method: Method) -> float:
        y = x
        for _ in range(steps):
            y = way(attention, mlp, y, 1 / steps, method)
        return distances(y, advance(both, x, 1.0, 200, method="rk4"))

    for way, method, order in ((lie_trotter, "heun", 1), (strang, "heun", 2), (strang, "euler", 1)):
        one, two = (error(way, steps, method) for steps in (32, 64))  # type: ignore[arg-type]
        assert math.log2(one / two) == pytest.approx(order, abs=0.15)


def test_presets_are_what_they_say() -> None:
    x = mean_field_init(2, 200, 400, pull=1.0)
    # The cross terms average over 200 tokens and 400 axes.
    assert mean_cosine(x).tolist() == pytest.approx([0.5, 0.5], abs=0.02)
    low, high = Field(beta=0.5), Field(beta=4.0)
    law = coupling_schedule(low, high, 2.0)
    for t, share in ((0.0, 0.0), (1.0, 0.5), (5.0, 1.0)):
        wanted = (1 - share) * low(t, x) + share * high(t, x)
        assert torch.allclose(law(t, x), wanted, atol=1e-15)


def test_refusals() -> None:
    x = scattered(3, 4)
    with pytest.raises(SettingError, match="expected one of euler, heun, rk4"):
        advance(Field(), x, 1.0, 4, method="midpoint")  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="at least 1"):
        advance(Field(), x, 1.0, 0)
    with pytest.raises(SettingError, match="on the sphere: norm='post'"):
        advance(Field(), x, 1.0, 4, sphere=False, noise=Noise(1.0))
    for norm in ("pre", "peri"):  # on the sphere their law would be that of norm='post'
        with pytest.raises(SettingError, match=f"norm='{norm}' .* sphere=False"):
            advance(Field(norm=norm), x, 1.0, 4)  # type: ignore[arg-type]
    for temperature in (-0.1, math.nan, math.inf):
        with pytest.raises(SettingError, match=f"temperature is {temperature}"):
            Noise(temperature)
    with pytest.raises(SettingError, match="rise from 0"):
        record(Field(), x, [1.0, 0.5], mean_cosine, longest=0.1)
    x = scattered(3, 4)
    x[1] = 0
    with pytest.raises(SettingError, match="token 1 .* no direction"):
        advance(Field(), x, 1.0, 4)
    with pytest.raises(SettingError, match="token 1 .* no direction"):
        fixed_point(Field(), x)
    seen = torch.tensor([True, False, True])
    assert advance(Field(mask=seen), x, 1.0, 4)[seen].isfinite().all()
    with pytest.raises(SettingError, match="expected more than 0"):
        coupling_schedule(Field(), Field(), 0)
