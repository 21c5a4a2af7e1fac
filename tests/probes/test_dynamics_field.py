"""The law of motion against identities and closed forms, instant by instant, in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from probes.dynamics import theory
from probes.dynamics.field import Differential, Field, Kernel
from probes.dynamics.flow import advance, require_tokens
from probes.dynamics.linear import push
from probes.dynamics.observables import clusters, energy, mean_cosine, order_parameter
from probes.dynamics.reduction import reduced
from probes.dynamics.sphere import angles, equiangular, on_circle, project, scattered, unit
from workbench.errors import SettingError

KERNELS: tuple[Kernel, ...] = ("sa", "usa")
ROUNDING = 1e-13  # sums of tens of float64 terms of order 1: some hundreds of ulps


def dense(x: Tensor, beta: float, kernel: Kernel, causal: bool = False) -> Tensor:
    """The definition, from the whole matrix of weights."""
    u = x / x.norm(dim=-1, keepdim=True)
    weights = torch.exp(beta * (u @ u.mT - 1))
    seen = torch.ones_like(weights).tril() if causal else torch.ones_like(weights)
    weights = weights * seen
    total = weights.sum(-1, keepdim=True) if kernel == "sa" else seen.sum(-1, keepdim=True)
    return project(u, weights / total @ u)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("causal", [False, True])
def test_velocities_are_those_of_the_definition_for_many_systems_at_once(
    kernel: Kernel, causal: bool
) -> None:
    x = scattered(3, 2, 7, 5)
    beta = torch.tensor([0.0, 0.5, 9.0], dtype=torch.float64)[:, None]
    found = Field(beta=beta, kernel=kernel, causal=causal)(0, x)
    for index in range(3):
        wanted = dense(x[index], float(beta[index]), kernel, causal)
        assert (found[index] - wanted).abs().max() < ROUNDING
    mean = Field(beta=0, kernel=kernel, causal=causal)(0, x[0])  # the O(n) way
    assert (mean - found[0]).abs().max() < ROUNDING


@pytest.mark.parametrize("kernel", KERNELS)
def test_an_equiangular_start_moves_by_the_scalar_law(kernel: Kernel) -> None:
    gamma = torch.tensor([-0.15, 0.0, 0.3, 0.9], dtype=torch.float64)
    x = equiangular(6, 8, gamma)
    for beta in (0.0, 1.0, 9.0):
        moved = Field(beta=beta, kernel=kernel)(0, x)
        slope = 2 * (moved @ x.mT)[:, 0, 1]
        wanted = torch.from_numpy(theory.equiangular_rate(gamma.numpy(), beta, 6, kernel))
        assert (slope - wanted).abs().max() < 1e-11


@pytest.mark.parametrize("kernel", KERNELS)
def test_before_and_around_a_branch_norms_are_not_held(kernel: Kernel) -> None:
    """pre: the attention of the directions as it is; peri: its direction alone, at speed 1."""
    x = 2 * scattered(6, 4)
    u = x / x.norm(dim=-1, keepdim=True)
    weights = torch.exp(3.0 * (u @ u.mT - 1))
    force = weights / (weights.sum(-1, keepdim=True) if kernel == "sa" else 6) @ u
    pre, peri = (Field(beta=3.0, kernel=kernel, norm=norm)(0, x) for norm in ("pre", "peri"))
    assert (pre - force).abs().max() < ROUNDING
    assert (peri - force / force.norm(dim=-1, keepdim=True)).abs().max() < ROUNDING


def test_unnormalised_attention_is_worked_through_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    x = scattered(2, 11, 3)
    mask = torch.ones(2, 11, dtype=torch.bool)
    mask[0, :3] = False
    for causal in (False, True):
        field = Field(beta=2.0, kernel="usa", causal=causal, mask=mask)
        whole = field(0, x)
        with monkeypatch.context() as patched:
            patched.setattr("probes.dynamics.field.SCORES", 2 * 11 * 2)
            assert (field(0, x) - whole).abs().max() < ROUNDING


@pytest.mark.parametrize("kernel", KERNELS)
def test_energy_rises_by_the_speeds(kernel: Kernel) -> None:
    x, beta = scattered(9, 4), 3.0
    moved = Field(beta=beta, kernel=kernel)(0, x)
    slope = push(lambda y: energy(y, beta), x, moved)[1]
    speeds = moved.square().sum(-1)
    if kernel == "sa":
        speeds = speeds * torch.exp(beta * (x @ x.mT - 1)).mean(-1)  # Z_i / n
    assert (slope - speeds.mean()).abs() < 1e-12


def test_energy_rises_where_the_mean_cosine_falls() -> None:
    """Two tokens meet at 150 degrees from the other six: (c120 + c180) = -1.5 becomes 2 c150 = -1.73."""
    x = on_circle(torch.deg2rad(torch.tensor([0.0] * 6 + [120, 180], dtype=torch.float64)))
    # softmax leaks about e^(-9) to the other side, so that at time 10 the pair is one and has not left
    after = advance(Field(beta=6.0), x, 10.0, 200)
    assert energy(after, 6.0) > energy(x, 6.0)
    fall = (6 * (-1.5 + math.sqrt(3)) - 0.5) / 28  # pairs of 8; their own cosine goes from 1/2 to 1
    assert float(mean_cosine(x) - mean_cosine(after)) == pytest.approx(fall, abs=1e-3)


def test_on_the_circle_the_vectors_move_by_the_law_of_angles() -> None:
    theta = torch.linspace(0, 5, 8, dtype=torch.float64) ** 1.3
    frequencies = torch.linspace(-1, 1, 8, dtype=torch.float64)
    x = on_circle(theta)
    for beta in (0.0, 1.0, 6.0):
        moved = Field(beta=beta, frequencies=frequencies)(0, x)
        turned = moved[:, 1] * x[:, 0] - moved[:, 0] * x[:, 1]
        gap = theta - theta[:, None]
        weights = torch.softmax(beta * gap.cos(), -1)
        wanted = frequencies + (weights * gap.sin()).sum(-1)
        assert (turned - wanted).abs().max() < 2e-12


@pytest.mark.parametrize("kernel", KERNELS)
def test_modes_about_uniform_tokens_grow_by_bessel_functions(kernel: Kernel) -> None:
    n = 96  # aliases are of order I_{n-k}(beta), below 1e-50
    theta = torch.arange(n, dtype=torch.float64) * (2 * math.pi / n)
    x = on_circle(theta)
    normal = torch.stack([-x[:, 1], x[:, 0]], -1)
    for beta in (1.0, 9.0):
        field = Field(beta=beta, kernel=kernel)
        for k in (1, 2, 3, 4):
            mode = (k * theta).cos()[:, None] * normal
            slope = push(lambda y, field=field: field(0, y), x, mode)[1]
            assert (slope - float(theory.growth(k, beta, kernel)) * mode).abs().max() < 1e-9


def test_differential_attention_of_equals_is_less_attention() -> None:
    x, q = scattered(6, 4), scattered(4, 4, seed=1)
    plain = Field(beta=2.0, q=q)(0, x)
    less = Field(beta=2.0, q=q, minus=Differential(0.3, 2.0, q=q))(0, x)
    assert (less - 0.7 * plain).abs().max() < ROUNDING
    other = Field(beta=2.0, q=q, minus=Differential(0.3, 0.0))(0, x)
    assert (other - (plain - 0.3 * Field(beta=0.0)(0, x))).abs().max() < ROUNDING


def test_two_unnormalised_attentions_are_in_one_unit_of_time() -> None:
    """A1 - lambda A2 as written, times exp(-beta) of A1; one beta a system."""
    x = scattered(2, 6, 4)
    first, second = torch.tensor([1.0, 4.0], dtype=torch.float64), 2.5
    field = Field(beta=first, kernel="usa", minus=Differential(0.3, second))
    for index, beta in enumerate(first.tolist()):
        one = x[index]
        weights = torch.exp(beta * one @ one.T) - 0.3 * torch.exp(second * one @ one.T)
        wanted = math.exp(-beta) / 6 * weights @ one
        assert (field.attention(x)[index] - wanted).abs().max() < ROUNDING


def test_general_maps_are_of_column_vectors() -> None:
    x = scattered(5, 3)
    q, k, v = (scattered(3, 3, seed=seed) for seed in (1, 2, 3))
    wanted = torch.zeros_like(x)
    for i in range(5):
        weights = torch.softmax(torch.stack([2.0 * (q @ x[i]) @ (k @ x[j]) for j in range(5)]), 0)
        wanted[i] = sum(weights[j] * (v @ x[j]) for j in range(5))
    assert (Field(beta=2.0, q=q, k=k, v=v).attention(x) - wanted).abs().max() < ROUNDING


def test_a_layer_is_one_of_a_network_with_rms_norm() -> None:
    n, d, h, beta = 7, 16, 0.3, 4.0
    x = scattered(n, d)
    heads = torch.nn.MultiheadAttention(d, 1, bias=False, dtype=torch.float64)
    norm = torch.nn.RMSNorm(d, eps=0, dtype=torch.float64)
    eye = torch.eye(d, dtype=torch.float64)
    # Tokens of a network have norm sqrt(d), and its scores are divided by sqrt(d).
    scale = beta / math.sqrt(d)
    heads.in_proj_weight.data = torch.cat([scale * eye, eye, h * eye])
    heads.out_proj.weight.data = eye
    wide = math.sqrt(d) * x
    layer = norm(wide + heads(wide, wide, wide, need_weights=False)[0]) / math.sqrt(d)
    # Two ulps of numbers below 1; a few more where libraries sum in another order.
    assert (Field(beta=beta).layer(x, h) - layer).abs().max() < 1e-15


def test_attention_alone_shrinks_what_differs_cubically_and_a_skip_linearly() -> None:
    common, apart = scattered(1, 6), scattered(5, 6, seed=1)
    field = Field(beta=1.0)

    def residual(x: Tensor) -> Tensor:
        return (x - x.mean(0)).norm()

    sizes = torch.logspace(-2, -3, 5, dtype=torch.float64)
    starts = [common + size * apart for size in sizes]
    for layer, order in ((field.attention, 3), (lambda x: x + field.attention(x), 1)):
        after = torch.stack([residual(layer(x)) for x in starts])
        slope = (after[0] / after[-1]).log() / (sizes[0] / sizes[-1]).log()
        assert abs(float(slope) - order) < 0.02  # the next term is of relative size 1e-2


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("causal", [False, True])
def test_what_stands_in_the_padding_changes_nothing(kernel: Kernel, causal: bool) -> None:
    x = scattered(5, 4)
    alone = Field(beta=2.0, kernel=kernel, causal=causal)(0, x)
    for side in (slice(0, 5), slice(3, 8)):
        padded = torch.full((8, 4), torch.nan, dtype=torch.float64)
        padded[side] = x
        mask = torch.zeros(8, dtype=torch.bool)
        mask[side] = True
        for beta in (2.0, 0):
            field = Field(beta=beta, kernel=kernel, causal=causal, mask=mask)
            wanted = alone if beta else Field(beta=0, kernel=kernel, causal=causal)(0, x)
            found = field(0, padded)
            assert (found[side] - wanted).abs().max() < ROUNDING
            assert (found[~mask] == 0).all()


@pytest.mark.parametrize("norm", ["post", "pre", "peri"])
def test_order_and_axes_do_not_matter(norm: str) -> None:
    x = 2 * scattered(6, 4)
    field = Field(beta=2.0, norm=norm)  # type: ignore[arg-type]
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    turn = torch.linalg.qr(scattered(4, 4, seed=2)).Q
    moved = field(0, x)
    assert (field(0, x[order]) - moved[order]).abs().max() < ROUNDING
    assert (field(0, x @ turn) - moved @ turn).abs().max() < ROUNDING


def test_one_token_rests_and_duplicates_stay_together() -> None:
    assert Field(beta=3.0)(0, scattered(1, 4)).abs().max() < ROUNDING
    x = scattered(3, 4)[torch.tensor([0, 0, 1, 2, 1])]
    moved = advance(Field(beta=3.0), x, 2.0, 40)
    assert torch.allclose(moved[0], moved[1], atol=ROUNDING)
    assert torch.allclose(moved[2], moved[4], atol=ROUNDING)
    assert mean_cosine(scattered(1, 4)).isnan()


def test_short_floats_are_moved_in_float32() -> None:
    x = scattered(6, 4).bfloat16()
    moved = advance(Field(beta=1.0), x, 1.0, 20)
    assert moved.dtype == torch.float32
    wanted = advance(Field(beta=1.0), x.double(), 1.0, 20)
    assert (moved - wanted).abs().max() < 1e-5  # 20 steps of float32 rounding


def test_more_dimensions_than_tokens_are_reduced_exactly() -> None:
    x = scattered(2, 5, 40)
    field = Field(beta=3.0, minus=Differential(0.2, 1.0))
    small = reduced(field, x)
    assert small.x.shape == (2, 5, 5)
    whole = advance(field, x, 2.0, 50)
    assert (small.lift(advance(field, small.x, 2.0, 50)) - whole).abs().max() < ROUNDING
    with pytest.raises(SettingError, match="only without them is the span kept"):
        reduced(Field(v=torch.eye(40)), x)
    with pytest.raises(SettingError, match="nothing to reduce"):
        reduced(field, small.x)


def test_what_is_looked_at() -> None:
    x = equiangular(5, 6, 0.3)
    assert mean_cosine(x) == pytest.approx(0.3, abs=ROUNDING)
    assert order_parameter(x) == pytest.approx(math.sqrt((5 + 20 * 0.3) / 25), abs=ROUNDING)
    assert float(energy(x[:1], 4.0)) == pytest.approx(1 / 8)
    chain = on_circle(torch.tensor([0.0, 0.3, 0.6, 2.0, 2.1, 4.0], dtype=torch.float64))
    both = torch.stack([chain, chain.roll(2, 0)])
    assert clusters(both, math.cos(0.31)).tolist() == [3, 3]
    assert angles(chain)[:5].tolist() == pytest.approx([0.0, 0.3, 0.6, 2.0, 2.1])
    assert unit(torch.zeros(3)).tolist() == [0, 0, 0]


def test_refusals() -> None:
    with pytest.raises(SettingError, match="expected one of sa, usa"):
        Field(kernel="softmax")  # type: ignore[arg-type]
    for bad in (
        {"beta": math.nan},
        {"beta": torch.tensor([1.0, math.inf])},
        {"minus": Differential(0.5, math.nan)},
    ):
        with pytest.raises(SettingError, match=r"beta is .*: expected finite numbers"):
            Field(**bad)  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="norm='pre'"):
        Field(norm="pre", frequencies=torch.zeros(3))
    with pytest.raises(SettingError, match="tokens have d = 3"):
        Field(frequencies=torch.zeros(4))(0, scattered(4, 3))
    with pytest.raises(SettingError, match="cosine in"):
        equiangular(5, 6, -0.3)
    x = scattered(2, 4, 3)
    x[1, 2] = 0
    with pytest.raises(SettingError, match="token 2 .* no direction"):
        require_tokens(x)
    require_tokens(x, x.norm(dim=-1) > 0)
