"""Metrics of particles against closed forms, naive forms, gradients and scikit-learn; float64.

Unless a line says otherwise the tolerance is 1e-12: sums of at most 10^4 products of numbers up to 1, each
rounded at 2e-16, in another order.
"""

import math
from collections.abc import Callable
from functools import partial
from statistics import NormalDist

import numpy as np
import pytest
import torch
from torch import Tensor

from probes.particles.clusters import (
    Joined,
    Participation,
    Spectrum,
    components,
    participation_ratio,
    vendi,
)
from probes.particles.concentration import (
    Coinciding,
    Nearest,
    coinciding_pairs,
    nearest_neighbour_cosine,
)
from probes.particles.dimension import two_nn
from probes.particles.dimensions import cosine_share, energy_share
from probes.particles.energy import (
    Energy,
    interaction_energy,
    log_interaction_energy,
    mean_field_force,
    mean_force,
    pattern_force,
)
from probes.particles.histograms import (
    OfCosines,
    cosine_histogram,
    first_component,
    projection,
    projection_histogram,
    quantile,
)
from probes.particles.order import debiased_order, mean_cosine, order_parameter
from probes.particles.pairs import over_pairs
from probes.particles.rank import composite_norm, composite_residual, relative_residual
from probes.particles.spins import magnetisation, spin_energy, susceptibility
from workbench import SettingError

BETA = 3.0
EXACT = {"rtol": 1e-12, "atol": 1e-12}


def directions(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(*shape, generator=random, dtype=torch.float64)
    return (x / x.norm(dim=-1, keepdim=True)).to(dtype)


def every(u: Tensor) -> Tensor:
    return torch.ones(u.shape[:-1], dtype=torch.bool)


def some(u: Tensor, seed: int = 1) -> Tensor:
    """A mask of about two thirds, different for each set."""
    return torch.rand(u.shape[:-1], generator=torch.Generator().manual_seed(seed)) < 0.65


def poisoned(u: Tensor, mask: Tensor) -> Tensor:
    return u.masked_fill(~mask[..., None], torch.nan)


MASSES = [(5, 5), (7, 2, 1), (1, 1, 1, 1, 9)]


def on_axes(masses: tuple[int, ...], d: int) -> Tensor:
    return torch.eye(d, dtype=torch.float64)[
        torch.arange(len(masses)).repeat_interleave(torch.tensor(masses))
    ]


@pytest.mark.parametrize("d", [6, 40], ids=["more_tokens", "more_dimensions"])
@pytest.mark.parametrize("masses", MASSES, ids=str)
def test_cluster_masses_on_orthogonal_axes(masses: tuple[int, ...], d: int) -> None:
    """Everything is known; 1e-14 because the Gram matrices are of whole numbers."""
    u = on_axes(masses, d)
    mask, n = every(u), sum(masses)
    p = torch.tensor(masses, dtype=torch.float64) / n
    purity, entropy = p.square().sum(), torch.special.entr(p).sum()
    pairs = sum(m * (m - 1) for m in masses) / (n * (n - 1))
    close = partial(torch.testing.assert_close, rtol=1e-14, atol=1e-14)
    close(participation_ratio(u, mask), 1 / purity)
    close(vendi(u, mask), entropy.exp())
    close(order_parameter(u, mask), purity.sqrt())
    close(mean_cosine(u, mask).item(), pairs)
    close(coinciding_pairs(u, mask).item(), pairs)
    close(debiased_order(order_parameter(u, mask), mask.sum()).item(), pairs**0.5)
    close(nearest_neighbour_cosine(u, mask).item(), sum(m for m in masses if m > 1) / n)
    close(components(u, mask).item(), float(len(masses)))
    energy = (purity * math.exp(BETA) + 1 - purity) / (2 * BETA)
    close(interaction_energy(u, mask, BETA), energy, rtol=1e-13)  # of exp and log
    close(spin_energy(u, mask), -purity / 2)
    close(relative_residual(u, mask), (1 - purity).sqrt())
    close(cosine_share(u, mask, 1), p.square().max() / purity)
    close(energy_share(u, mask, 1), p.max())


def naive(u: Tensor) -> dict[str, float]:
    """Of one set without padding, from the full Gram matrix."""
    n, gram = len(u), u @ u.T
    off = gram[~torch.eye(n, dtype=torch.bool)]
    share = torch.linalg.svdvals(u).square() / n
    force = torch.softmax(BETA * gram, 1) @ u
    return {
        "order_parameter": u.mean(0).norm().item(),
        "mean_cosine": off.mean().item(),
        "participation_ratio": 1 / share.square().sum().item(),
        "vendi": torch.special.entr(share).sum().exp().item(),
        "nearest": (gram - 3 * torch.eye(n)).max(1).values.mean().item(),
        "coinciding": (off > 0.3).double().mean().item(),
        "energy": (BETA * gram).exp().mean().item() / (2 * BETA),
        "force": (force - (force * u).sum(1, True) * u).norm(dim=1).mean().item(),
        "residual": (1 - n * u.mean(0).square().sum() / u.square().sum()).sqrt().item(),
        "composite": math.prod(
            torch.linalg.matrix_norm(u - u.mean(0), ord).item() for ord in (1, math.inf)
        )
        ** 0.5,
        "composite_norm": math.prod(torch.linalg.matrix_norm(u, o).item() for o in (1, math.inf))
        ** 0.5,
        "spin": -gram.mean().item() / 2,
        "two_nn": facco(u),
    }


def facco(u: Tensor) -> float:
    """TwoNN as published, from sorted distances."""
    near = torch.cdist(u, u, compute_mode="donot_use_mm_for_euclid_dist").sort(1).values
    mu = (near[:, 2] / near[:, 1]).log().sort().values
    kept = int(0.9 * len(mu))
    y, x = -torch.log(1 - torch.arange(1, kept + 1).double() / len(mu)), mu[:kept]
    return ((x @ y) / (x @ x)).item()


METRICS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "order_parameter": order_parameter,
    "mean_cosine": mean_cosine,
    "participation_ratio": participation_ratio,
    "vendi": vendi,
    "nearest": nearest_neighbour_cosine,
    "coinciding": partial(coinciding_pairs, above=0.3),
    "energy": partial(interaction_energy, beta=BETA),
    "force": partial(mean_force, beta=BETA),
    "residual": relative_residual,
    "composite": composite_residual,
    "composite_norm": composite_norm,
    "spin": spin_energy,
    "two_nn": two_nn,
}
ROTATABLE = sorted(METRICS.keys() - {"composite", "composite_norm"})


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("d", [5, 60], ids=["more_tokens", "more_dimensions"])
def test_batched_and_masked_as_each_set_by_itself(name: str, d: int) -> None:
    """Sets of different sizes in [2, 3, 30, d], NaN in what is masked."""
    u = directions(2, 3, 30, d)
    mask = some(u)
    alone = [
        naive(one[here])[name]
        for one, here in zip(u.flatten(0, 1), mask.flatten(0, 1), strict=True)
    ]
    ours = METRICS[name](poisoned(u, mask), mask)
    # two_nn: near distances are differences of the Gram's terms, and logarithms of their ratios
    loose = {"rtol": 1e-9, "atol": 0} if name == "two_nn" else EXACT
    torch.testing.assert_close(ours, torch.tensor(alone, dtype=torch.float64).view(2, 3), **loose)


@pytest.mark.parametrize("d", [5, 200], ids=["more_tokens", "more_dimensions"])
def test_one_pass_over_several_blocks_as_each_by_itself(d: int) -> None:
    """Sets of 150 tokens take three blocks; a masked one among them is whole, and one set is empty."""
    u = directions(3, 150, d)
    mask = some(u)
    mask[0, 64:128], mask[2] = False, False
    poisoned_u = poisoned(u, mask)
    gram = {"participation_ratio": Participation(u, mask), "vendi": Spectrum(u, mask, 150)}
    pairs = {
        "nearest": Nearest(u, mask),
        "coinciding": Coinciding(u, mask, 0.3),
        "energy": Energy(u, mask, BETA),
        "components": Joined(u, mask, 0.3),
        "histogram": OfCosines(u, mask, 7),
    }
    over_pairs(u.masked_fill(~mask[..., None], 0), mask, *pairs.values(), *gram.values())
    found = {name: one.value() for name, one in (pairs | gram).items()}
    found["energy"] = found["energy"].exp()
    histogram = found.pop("histogram")
    for one, here, ours in zip(u, mask[:2], histogram, strict=False):
        cosines = (one[here] @ one[here].T)[torch.triu(torch.ones(here.sum(), here.sum()), 1) > 0]
        assert ours.tolist() == pytest.approx(
            (np.histogram(cosines.numpy(), 7, (-1, 1))[0] / len(cosines)).tolist(), abs=1e-15
        )
    assert histogram[2].isnan().all()
    # 150 eigenvalues, 145 of them 0 where d is 5: entropies of eps log eps each, instead of none
    vendi_close = {"rtol": 1e-11, "atol": 0} if d == 5 else EXACT
    for name, ours in found.items():
        metric = partial(components, threshold=0.3) if name == "components" else METRICS[name]
        close = vendi_close if name == "vendi" else EXACT
        torch.testing.assert_close(ours, metric(poisoned_u, mask), equal_nan=True, **close)
        assert ours.isnan().tolist() == [False, False, True]
    for name in found.keys() - {"components"}:
        close = vendi_close if name == "vendi" else EXACT
        alone = torch.tensor([naive(u[i][mask[i]])[name] for i in (0, 1)], dtype=torch.float64)
        torch.testing.assert_close(found[name][:2], alone, **close)


@pytest.mark.parametrize("name", METRICS)
def test_order_basis_and_half_precision(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens permuted, axes rotated, pairs in blocks of one row, and the same vectors as bfloat16."""
    u = directions(2, 12, 6)
    u[:, 5:9] = (u[:, :4] + 0.3 * u[:, 5:9]) / (u[:, :4] + 0.3 * u[:, 5:9]).norm(
        dim=-1, keepdim=True
    )
    mask, metric = some(u), METRICS[name]
    one = metric(u, mask)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    # two_nn: as above
    close = partial(
        torch.testing.assert_close, rtol=1e-9 if name == "two_nn" else 1e-12, atol=1e-12
    )
    close(metric(u[:, order], mask[:, order]), one)
    if name in ROTATABLE:
        rotation = torch.linalg.qr(directions(6, 6, seed=3)).Q
        close(metric(u @ rotation, mask), one)
    monkeypatch.setattr("probes.particles.sets.PAIRS", 1)
    close(metric(u, mask), one)
    half = metric(u.bfloat16(), mask)
    assert half.dtype == torch.float32
    # bfloat16 rounds at 2^-9, and so do sums of what it holds; a dimension of 8 points moves more
    torch.testing.assert_close(
        half.double(), one, rtol=0.3 if name == "two_nn" else 0.02, atol=0.01
    )


@pytest.mark.parametrize("d", [1, 4])
def test_what_is_not_defined_is_nan(d: int) -> None:
    """No tokens, one token, two that are the same; and never an error."""
    u = directions(1, 3, d).expand(3, 3, d).clone()
    u[2, 1] = u[2, 0]
    mask = torch.tensor([[0, 0, 0], [0, 1, 0], [1, 1, 0]]).bool()
    found = {name: metric(poisoned(u, mask), mask).tolist() for name, metric in METRICS.items()}
    found["components"] = components(poisoned(u, mask), mask).tolist()
    nan, row = math.nan, math.sqrt(u[1, 1].abs().sum() * u[1, 1].abs().max())
    whole = math.exp(BETA) / (2 * BETA)
    expected = {
        "order_parameter": [nan, 1, 1],
        "mean_cosine": [nan, nan, 1],
        "participation_ratio": [nan, 1, 1],
        "vendi": [nan, 1, 1],
        "components": [nan, 1, 1],
        "nearest": [nan, nan, 1],
        "coinciding": [nan, nan, 1],
        "energy": [nan, whole, whole],
        "force": [nan, 0, 0],
        "residual": [nan, 0, 0],
        "composite": [nan, 0, 0],
        "composite_norm": [0, row, None],
        "spin": [nan, -0.5, -0.5],
        "two_nn": [nan, nan, nan],
    }
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        for ours, theirs in zip(found[name], values, strict=True):
            assert theirs is None or ours == pytest.approx(theirs, abs=1e-12, nan_ok=True), name


@pytest.mark.parametrize("name", METRICS)
def test_a_single_place(name: str) -> None:
    """As one token among masked places."""
    u = directions(2, 3, 4)
    mask = torch.tensor([True, False, False]).expand(2, 3)
    padded, alone = METRICS[name](u, mask), METRICS[name](u[:, :1], mask[:, :1])
    torch.testing.assert_close(alone, padded, **EXACT, equal_nan=True)


N, D = 200, 64


@pytest.mark.parametrize(
    ("name", "expected", "within"),
    [
        ("order_parameter", N**-0.5, 0.1),
        ("participation_ratio", N * D / (N + D - 1), 0.02),
        ("vendi", D * math.exp(-D / (2 * N)), 0.02),
        ("nearest", NormalDist().inv_cdf(1 - 0.56 / N) / math.sqrt(D), 0.05),
        ("energy", (math.exp(BETA) / N + math.exp(BETA**2 / (2 * D))) / (2 * BETA), 0.01),
        ("residual", math.sqrt(1 - 1 / N), 0.001),
        ("composite", math.sqrt(2 * N / math.pi), 0.12),
        ("composite_norm", math.sqrt(2 * N / math.pi), 0.12),
        ("spin", -1 / (2 * N), 0.2),
    ],
)
def test_of_random_directions(name: str, expected: float, within: float) -> None:
    """The values that the docstrings state, which are approximate: the mean over 8 sets of 200 in 64."""
    u = directions(8, N, D)
    assert METRICS[name](u, every(u)).mean().item() == pytest.approx(expected, rel=within)


def test_random_directions_around_zero() -> None:
    """Means over 8 sets; four standard errors."""
    u = directions(8, N, D)
    mask = every(u)
    error = math.sqrt(2 / (N * (N - 1) * D)) / math.sqrt(8)
    assert abs(mean_cosine(u, mask).mean()) < 4 * error
    assert coinciding_pairs(u, mask).max() == 0
    assert components(u, mask).tolist() == [N] * 8
    chi = susceptibility(magnetisation(u, mask), mask.sum(-1))
    assert chi.item() == pytest.approx(1, abs=4 * math.sqrt(2 / (7 * D)))  # a chi-square of 7 d
    assert cosine_share(u, mask, 3).mean().item() == pytest.approx(
        2 * 3 * math.log(D / 3) / D, rel=0.2
    )
    assert energy_share(u, mask, 3).mean().item() == pytest.approx(3 / D, rel=0.3)
    histogram = cosine_histogram(u, mask, 50)
    centre = (torch.arange(50) + 0.5) / 25 - 1
    assert (histogram.mean(0) * centre**2).sum().item() == pytest.approx(1 / D, rel=0.05)


def test_debiased_order_is_the_root_of_the_mean_cosine() -> None:
    u = directions(5, 20, 8) + 0.3
    u = u / u.norm(dim=-1, keepdim=True)
    mask = some(u)
    ours = debiased_order(order_parameter(u, mask), mask.sum(-1))
    torch.testing.assert_close(ours, mean_cosine(u, mask).clamp(min=0).sqrt(), rtol=1e-12, atol=0)
    assert debiased_order(torch.tensor([0.1, 0.5]), torch.tensor([9, 1])).nan_to_num(
        7
    ).tolist() == [0, 7]


def test_force_is_the_gradient_of_the_energy() -> None:
    """P grad_i E = (Z_i / n^2) force_i, Z_i = sum_j exp(beta <u_i, u_j>), by automatic differentiation."""
    u = directions(2, 9, 5).requires_grad_()
    mask = some(u)
    (gradient,) = torch.autograd.grad(interaction_energy(u, mask, BETA).sum(), u)
    weight = (BETA * (u @ u.mT)).exp().masked_fill(~mask[:, None], 0)
    scale = weight.sum(-1, keepdim=True) / mask.sum(-1)[:, None, None] ** 2
    force = mean_field_force(u, mask, BETA)
    projected = gradient - (gradient * u).sum(-1, keepdim=True) * u
    torch.testing.assert_close(projected, scale * force, **EXACT)
    pattern = poisoned(weight / weight.sum(-1, keepdim=True), mask)
    torch.testing.assert_close(pattern_force(poisoned(u, mask), mask, pattern), force, **EXACT)
    assert force[~mask].abs().max() == 0


def test_energy_where_exponentials_overflow() -> None:
    """One direction at beta = 1e4 in float32: log E = beta - log(2 beta), E beyond the dtype."""
    u = torch.ones(4, 1)
    log = log_interaction_energy(u, every(u), 1e4)
    assert log.item() == pytest.approx(1e4 - math.log(2e4), rel=1e-6)
    assert interaction_energy(u, every(u), 1e4).item() == math.inf
    # E itself fits where e^beta (1.5e39) does not
    assert interaction_energy(u, every(u), 90.5).item() == pytest.approx(
        math.exp(90.5) / 181, rel=1e-5
    )


@pytest.mark.parametrize("beta", [0.0, -1.0, math.nan, math.inf])
def test_beta_that_is_no_inverse_temperature(beta: float) -> None:
    u = directions(3, 2)
    for metric in (interaction_energy, mean_field_force):
        with pytest.raises(SettingError, match="inverse temperature"):
            metric(u, every(u), beta)


def test_spins() -> None:
    """The infinite-temperature limit of the energy, and n var of the magnetisation."""
    u = directions(6, 10, 4)
    mask, beta = every(u), 1e-5
    limit = interaction_energy(u, mask, beta) - 1 / (2 * beta)
    # the next term is beta/4; 1/(2 beta) = 5e4 rounds at 1e-11
    torch.testing.assert_close(-spin_energy(u, mask), limit, rtol=0, atol=beta)
    m = magnetisation(u, mask)
    expected = 10 * m.var(0, unbiased=True).sum()
    torch.testing.assert_close(susceptibility(m, mask.sum(-1)), expected, **EXACT)
    m[5] = torch.nan
    n = torch.tensor([10, 10, 10, 10, 10, 0])
    torch.testing.assert_close(susceptibility(m, n), 10 * m[:5].var(0).sum(), **EXACT)
    assert susceptibility(m[:1], n[:1]).isnan()


def test_susceptibility_of_unequal_prompts_is_one_by_chance() -> None:
    u = directions(2000, 12, 5)
    mask = torch.arange(12) < torch.arange(2000)[:, None] % 11 + 2
    chi = susceptibility(magnetisation(u, mask), mask.sum(-1))
    # each dimension's is chi-square / (2000 - 1) / 5 but for tails that are lighter
    assert chi.item() == pytest.approx(1, abs=4 * math.sqrt(2 / (2000 * 5)))


def test_residual_near_collapse() -> None:
    """1 - n |mean|^2 / |X|^2 would be 0 here. Rounding of the states at 1e-16 is 1e-6 of 1e-10."""
    noise = directions(50, 8) * 1e-10
    x = torch.ones(50, 8, dtype=torch.float64) + noise
    expected = (noise - noise.mean(0)).norm() / x.norm()
    torch.testing.assert_close(relative_residual(x, every(x)), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("d", [6, 40], ids=["more_tokens", "more_dimensions"])
def test_principal_component_as_svd(d: int) -> None:
    """Of sets of different sizes; the sign is the largest entry's; none where nothing varies."""
    u = directions(4, 25, d) + torch.linspace(0, 0.5, d)
    mask = some(u)
    mask[1, 5:], mask[2], u[3] = False, False, u[3, 0].clone()
    axis, share = first_component(poisoned(u, mask), mask)
    for set_, here, one, part in zip(u[:2], mask, axis, share, strict=False):
        values, vectors = torch.linalg.svd(set_[here] - set_[here].mean(0), full_matrices=False)[1:]
        # eigenvectors turn by rounding over the gap of the eigenvalues, which is no less than 1e-2 of them
        assert abs(one @ vectors[0]).item() == pytest.approx(1, abs=1e-12)
        assert one[one.abs().argmax()] > 0
        assert part.item() == pytest.approx((values[0] ** 2 / (values**2).sum()).item(), abs=1e-12)
    assert axis[2:].isnan().all()
    assert share[2:].isnan().all()


def test_projections_and_histograms() -> None:
    u = directions(2, 25, 7)
    mask, axis = some(u), torch.linspace(-1, 2, 7)
    along = projection(poisoned(u, mask), mask, axis)
    assert along.isnan().equal(~mask)
    torch.testing.assert_close(
        along[0][mask[0]], u[0][mask[0]] @ axis.double() / axis.double().norm(), **EXACT
    )
    ours = cosine_histogram(poisoned(u, mask), mask, 20)
    for set_, here, found in zip(u, mask, ours, strict=True):
        one = set_[here]
        rows, columns = torch.triu_indices(len(one), len(one), 1)
        counted = torch.histc((one @ one.T)[rows, columns], 20, -1, 1)
        torch.testing.assert_close(found, counted / len(rows), **EXACT)
    short = u.bfloat16().float()  # lengths and cosines are off by 2^-8, many bins of this histogram
    fine = cosine_histogram(short, mask, 2000)
    assert fine.min() >= 0
    torch.testing.assert_close(fine.sum(-1), torch.ones(2), rtol=1e-6, atol=0)
    ours = projection_histogram(poisoned(u, mask), mask, axis, 8)
    for set_, here, found in zip(along, mask, ours, strict=True):
        counted = np.histogram(set_[here].numpy(), 8, (-1, 1))[0]
        assert found.tolist() == pytest.approx((counted / counted.sum()).tolist(), abs=1e-15)
    assert projection_histogram(u, mask, axis * torch.nan, 8).isnan().all()
    same = torch.ones(3, 1).expand(3, 2) / math.sqrt(2)
    assert cosine_histogram(same, every(same), 4).tolist() == [0, 0, 0, 1]


def test_quantiles_of_a_histogram() -> None:
    """Of samples binned finely, numpy's to the width of a bin; within a bin even; none of none."""
    values = np.random.default_rng(0).uniform(-0.4, 0.7, 5000)
    share = torch.tensor(np.histogram(values, 100, (-1, 1))[0] / 5000)
    for q in (0.05, 0.5, 0.95):
        assert quantile(share, q).item() == pytest.approx(np.quantile(values, q), abs=0.02)
    two = torch.tensor([[0.5, 0.0, 0.0, 0.5], [torch.nan] * 4])
    assert quantile(two, 0.25)[0].item() == -0.75
    assert quantile(two, 0.5)[0].item() == -0.5
    assert quantile(two, 0.95)[1].isnan()
