"""From states to particles, and the paths that states take through layers."""

import math

import pytest
import torch

from probes.particles.order import order_parameter
from probes.particles.path import step_size, straightness, turn_cosine
from probes.particles.preprocessing import prepare
from tests.probes.test_particle_metrics import directions, every, poisoned, some


def test_what_is_left_out_is_counted() -> None:
    """A sink 11 times the median, a token at the corpus mean, one that is zero, padding of NaN."""
    mean = torch.full((5,), 0.5, dtype=torch.float64)
    x = directions(3, 9, 5) + mean
    x[0, 2] *= 11 * x[0, 3:].norm(dim=-1).median() / x[0, 2].norm()
    x[1, 4] = mean
    x[2, 5] = 0.0
    mask = torch.ones(3, 9, dtype=torch.bool)
    mask[:, 0] = False
    centred = prepare(poisoned(x, mask), mask, mean, dtype=torch.float64)
    assert centred.sinks.tolist() == [1, 0, 0]
    assert centred.zeros.tolist() == [0, 1, 0]
    assert centred.mask.sum(-1).tolist() == [7, 7, 8]
    assert centred.u[~centred.mask].abs().max() == 0
    expected = (x - mean) / (x - mean).norm(dim=-1, keepdim=True)
    torch.testing.assert_close(centred.u[centred.mask], expected[centred.mask], rtol=0, atol=1e-15)
    raw = prepare(poisoned(x, mask), mask, dtype=torch.float64)
    assert (raw.sinks.tolist(), raw.zeros.tolist()) == ([1, 0, 0], [0, 0, 1])
    every_token = prepare(x, mask, sink=math.inf)
    assert every_token.sinks.tolist() == [0, 0, 0]
    assert every_token.u.dtype == torch.float32


def test_a_mean_for_each_layer_and_a_state_that_equals_it_to_rounding() -> None:
    """[layers, d] means of [prompt, layer, n, d] states; float32 of float64 sums differ by an ulp."""
    mean = 100 * directions(2, 4, seed=2, dtype=torch.float32)
    x = directions(3, 2, 6, 4).float() + mean[:, None]
    x[0, 1, 3] = torch.nextafter(mean[1], torch.tensor(math.inf))
    found = prepare(x, every(x), mean)
    assert found.zeros.tolist() == [[0, 1], [0, 0], [0, 0]]
    left = (x - mean[:, None])[2, 1]
    torch.testing.assert_close(found.u[2, 1], left / left.norm(dim=-1, keepdim=True))


def test_half_precision_is_computed_wide() -> None:
    x = 300 * directions(2, 8, 16).half()  # its squares overflow float16
    found = prepare(x, every(x))
    assert found.u.dtype == torch.float32
    torch.testing.assert_close(found.u.norm(dim=-1), torch.ones(2, 8))


def test_no_tokens() -> None:
    x = directions(2, 3, 4)
    mask = every(x)
    mask[0] = False
    found = prepare(x, mask)
    assert found.sinks.tolist() == found.zeros.tolist() == [0, 0]
    assert order_parameter(found.u, found.mask).isnan().tolist() == [True, False]


def test_a_line_a_loop_and_a_stop() -> None:
    line = torch.arange(4.0)[:, None, None] * torch.tensor([1.0, 2.0]) + 1
    loop = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])[:, None] + 1
    still = torch.ones(4, 1, 2)
    one = torch.ones(1, dtype=torch.bool)
    assert straightness(line, one).item() == pytest.approx(1, abs=1e-6)
    assert turn_cosine(line, one).tolist() == pytest.approx([1, 1], abs=1e-6)
    assert straightness(loop, one).item() == 0
    assert turn_cosine(loop, one).tolist() == pytest.approx([0, -math.sqrt(0.5)], abs=1e-6)
    assert step_size(loop, one).tolist() == pytest.approx([math.sqrt(0.5), math.sqrt(0.2), 0.5])
    assert step_size(still, one).tolist() == [0, 0, 0]
    assert straightness(still, one).isnan()
    assert turn_cosine(still, one).isnan().all()
    moving = torch.cat([loop, still], dim=1)  # who stands still has no direction and is left out
    assert turn_cosine(moving, one.expand(2)).equal(turn_cosine(loop, one))


@pytest.mark.parametrize("d", [200])
def test_paths_of_random_states(d: int) -> None:
    """The values that the docstrings state; 40 tokens in 200 dimensions scatter by about 1%."""
    x = directions(2, 7, 40, d)
    mask = some(x[:, 0])
    x = x.masked_fill(~mask[:, None, :, None], torch.nan)
    assert step_size(x, mask).mean().item() == pytest.approx(math.sqrt(2), rel=0.03)
    assert straightness(x, mask).mean().item() == pytest.approx(1 / 6, rel=0.03)
    assert turn_cosine(x, mask).mean().item() == pytest.approx(-0.5, abs=0.03)
    walk = x.cumsum(1)
    assert straightness(walk, mask).mean().item() == pytest.approx(1 / math.sqrt(6), rel=0.05)
    assert turn_cosine(walk, mask).mean().item() == pytest.approx(0, abs=0.03)


def test_an_infinite_sink_spoils_no_sum() -> None:
    """As half precision overflows: left out, with zeros in its place, raw and centred."""
    x = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(0))
    x[0, 2, 3] = torch.inf
    for mean in (None, torch.ones(8)):
        found = prepare(x, torch.ones(2, 6, dtype=torch.bool), mean)
        assert found.sinks.tolist() == [1, 0]
        assert not found.u[0, 2].any()
        assert found.u.isfinite().all()
