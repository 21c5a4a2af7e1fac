"""Layers as a flow: closed forms, finite differences and another integrator."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.linalg import matrix_exp, slogdet, svdvals, vector_norm

import workbench as wb
from probes.flow.exponents import Push, frame, log_stretches, tangent
from probes.flow.fields import bracket, pushed
from probes.flow.integrate import defects, euler, integrated
from probes.flow.losses import loss
from probes.flow.orders import ORDERS, orders_of, reordered
from probes.flow.path import step_sizes, straightness, turns
from tests.tiny import model

TEXT = "abcd"
EXACT = {"atol": 1e-12, "rtol": 1e-12}  # roundings of float64, of numbers of a few units
# One of each kind of block: GELU and gated, sequential and parallel, norms behind a branch, multiplier.
KINDS = ["gpt2", "gpt_neox", "falcon_new", "opt", "llama", "gemma2", "granite", "cohere", "mixtral"]
FLOAT32 = ("llama", "gemma2", "granite", "cohere", "mixtral")  # their norms are in float32


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def linear(matrix: Tensor, states: Tensor) -> Tensor:
    return states @ matrix.T


def states_of(hooked: wb.Engine, batch: wb.Batch) -> Tensor:
    caught = hooked.capture(batch, "resid_post")
    shape = (*batch.ids.shape, -1)
    return torch.stack([caught["resid_post", at].view(shape) for at in range(hooked.n_layers + 1)])


# --- path -------------------------------------------------------------------------------


def test_a_line_is_straight_and_its_steps_are_their_share_of_the_state() -> None:
    start, way = random(5, 8), random(5, 8, seed=1)
    states = start + torch.arange(4.0, dtype=torch.float64)[:, None, None] * way
    torch.testing.assert_close(straightness(states), torch.ones(3, 5, dtype=torch.float64), **EXACT)
    torch.testing.assert_close(turns(states)[1:], torch.ones(2, 5, dtype=torch.float64), **EXACT)
    assert turns(states)[0].isnan().all()
    expected = vector_norm(way, dim=-1) / vector_norm(states[:-1], dim=-1)
    torch.testing.assert_close(step_sizes(states), expected, **EXACT)


def test_steps_at_right_angles_and_back_to_the_start() -> None:
    corner = torch.cat([torch.zeros(1, 6), torch.eye(6)]).double().cumsum(0)
    expected = torch.arange(1, 7).double().rsqrt()
    torch.testing.assert_close(straightness(corner), expected, **EXACT)
    assert (turns(corner)[1:] == 0).all()
    there_and_back = torch.tensor([[1.0, 0], [3, 0], [1, 0]], dtype=torch.float64)
    assert straightness(there_and_back)[-1] == 0
    assert turns(there_and_back)[-1] == -1


def test_what_does_not_exist_is_no_number() -> None:
    still = torch.zeros(3, 2, 4, dtype=torch.float64)
    for values in (step_sizes(still), straightness(still), turns(still)):
        assert values.isnan().all()


# --- integration --------------------------------------------------------------------------


def test_defects_of_a_linear_field_are_matrix_powers() -> None:
    matrix, states = 0.3 * random(6, 6), random(2, 3, 6, seed=1)
    eye = torch.eye(6, dtype=torch.float64)

    def power(n: int) -> Tensor:
        return states @ torch.matrix_power(eye + matrix / n, n).T

    found = defects(partial(linear, matrix), states, (1, 4), 64)
    length = vector_norm(states @ matrix.T, dim=-1)
    expected = [vector_norm(power(n) - power(64), dim=-1) / length for n in (1, 4)]
    torch.testing.assert_close(found, torch.stack(expected, -1), **EXACT)
    exact = integrated(partial(linear, matrix), states, 1e-9)
    # Errors of a step within 1e-9 of the smallest token's f, of some tens of steps.
    torch.testing.assert_close(exact, states @ matrix_exp(matrix).T, atol=1e-7, rtol=0)


def test_many_steps_through_a_real_block_come_to_another_integrators_flow() -> None:
    hooked = model("gpt2")
    batch = hooked.batch(TEXT)
    before = states_of(hooked, batch)[1]
    with hooked.blocks(batch) as blocks:

        def field(x: Tensor) -> Tensor:
            return blocks.run(2, x)[0] - x

        exact = integrated(field, before, 1e-7)
        off = [vector_norm(euler(field, before, n) - exact) for n in (64, 256, 512)]
        # Euler's method is of order 1: twice the steps, half the error, up to its square (1 / 256).
        assert off[1] / off[2] == pytest.approx(2, abs=0.02)
        assert off[2] < 0.05 * vector_norm(field(before))
        assert torch.equal(euler(field, before, 1), before + field(before))


def test_a_field_too_stiff_to_integrate_has_no_flow() -> None:
    stiff = integrated(lambda x: -1e9 * x, random(1, 1, 2), 1e-12)
    assert stiff.isnan().all()


def test_a_block_that_adds_nothing_has_no_defect() -> None:
    assert defects(torch.zeros_like, random(1, 2, 3), (1,), 4).isnan().all()


# --- bracket -------------------------------------------------------------------------------


def test_the_bracket_of_linear_fields_is_their_commutator() -> None:
    a, b, states = random(5, 5), random(5, 5, seed=1), random(2, 3, 5, seed=2)
    first, second = partial(linear, a), partial(linear, b)
    found = bracket(first, second, states)
    torch.testing.assert_close(found, states @ (b @ a - a @ b).T, **EXACT)
    torch.testing.assert_close(bracket(second, first, states), -found, **EXACT)


def runge_kutta(field: object, x: Tensor, time: float) -> Tensor:
    """One step of order 4; its error at these times, time^5, is below the roundings."""
    k1 = field(x)  # type: ignore[operator]
    k2 = field(x + time / 2 * k1)  # type: ignore[operator]
    k3 = field(x + time / 2 * k2)  # type: ignore[operator]
    k4 = field(x + time * k3)  # type: ignore[operator]
    return x + time / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def test_lie_and_trotters_local_error_is_half_the_bracket() -> None:
    """Attention's flow then the MLP's, less that of both, is h^2/2 [F, G] + O(h^3)."""
    hooked = model("gpt2")
    batch = hooked.batch(TEXT)
    before = states_of(hooked, batch)[1]
    with hooked.blocks(batch) as blocks:
        attention, mlp = (partial(blocks.branch, 2, part) for part in ("attention", "mlp"))
        expected = bracket(attention, mlp, before) / 2
        off = []
        for h in (1e-3, 5e-4):
            split = runge_kutta(mlp, runge_kutta(attention, before, h), h)
            both = runge_kutta(lambda x: attention(x) + mlp(x), before, h)
            error = (split - both) / h**2
            off.append(float(vector_norm(error - expected) / vector_norm(expected)))
    # The next term is of order h beside it, 1.03 h here: half of it at half of h.
    assert off[0] < 1.1e-3
    assert off[0] / off[1] == pytest.approx(2, abs=0.01)


def test_the_swap_of_small_fields_is_the_bracket() -> None:
    a, b, states = 1e-4 * random(5, 5), 1e-4 * random(5, 5, seed=1), random(1, 2, 5, seed=2)
    toy = Toy(a, b)
    swapped = reordered(toy, 1, "attention_first", states) - reordered(toy, 1, "mlp_first", states)
    # Linear fields have no higher terms; the roundings of states of 1 beside a bracket of 1e-8.
    expected = bracket(partial(linear, a), partial(linear, b), states)
    torch.testing.assert_close(swapped, expected, atol=1e-15, rtol=0)


@pytest.mark.parametrize("family", KINDS)
def test_derivatives_of_blocks_are_finite_differences(family: str) -> None:
    hooked = model(family)
    batch = hooked.batch(TEXT)
    before = states_of(hooked, batch)[0]
    way, step = random(*before.shape, seed=3), 1e-3 if family in FLOAT32 else 1e-5
    with hooked.blocks(batch) as blocks:
        for function in (lambda x: blocks.run(1, x)[0], partial(blocks.branch, 1, "attention")):
            found = pushed(function, before, way)
            ahead, behind = function(before + step * way), function(before - step * way)
            expected = (ahead - behind) / (2 * step)
            # Roundings over the step: 1e-16 / 1e-5, float32's 1e-7 / 1e-3; beside the step's square.
            tolerance = 2e-3 if family in FLOAT32 else 1e-7
            assert vector_norm(found - expected) < tolerance * vector_norm(expected)


def test_blocks_without_a_forward_derivative_are_refused() -> None:
    hooked = model("bloom")
    batch = hooked.batch(TEXT)
    before = states_of(hooked, batch)[0]
    with (
        hooked.blocks(batch) as blocks,
        pytest.raises(wb.UnsupportedError, match="operation without a forward derivative"),
    ):
        pushed(lambda x: blocks.run(1, x)[0], before, before)


# --- exponents -----------------------------------------------------------------------------


def walked(matrices: list[Tensor], start: Tensor) -> list[Tensor]:
    states = [start]
    for matrix in matrices:
        states.append(states[-1] @ matrix.T)
    return states


def maps(matrices: list[Tensor]) -> Push:
    return lambda layer, states, directions: directions @ matrices[layer - 1].T


def test_rotations_stretch_nothing_and_scales_only_lengths() -> None:
    turn = torch.linalg.qr(random(6, 6))[0]
    for factor in (0.5, 1.0, 1.2):
        matrices = [factor * turn] * 5
        states = walked(matrices, random(3, 6, seed=1))
        own = log_stretches(maps(matrices), states, 4)
        torch.testing.assert_close(own, torch.zeros_like(own), **EXACT)
        lengths = log_stretches(maps(matrices), states, 4, radial=True)
        torch.testing.assert_close(lengths, torch.full_like(own, factor).log(), **EXACT)


def test_with_depth_exponents_are_the_logs_of_a_diagonal_map() -> None:
    diagonal = torch.tensor([3.0, 2.0, 1.0, 0.5], dtype=torch.float64)
    matrices = [diagonal.diag()] * 200
    states = [random(1, 4, seed=1)] * 201
    found = log_stretches(maps(matrices), states, 4, radial=True)
    torch.testing.assert_close(found[-1], diagonal.log(), **EXACT)  # (2/3)^200 from there
    # At the direction that it comes to, the others grow by their ratio to it.
    states = walked(matrices, random(1, 4, seed=1))
    found = log_stretches(maps(matrices), states, 3)
    torch.testing.assert_close(found[-1], (diagonal[1:] / 3).log(), **EXACT)


def test_a_whole_frame_grows_as_the_volume_does() -> None:
    """On a real model: the determinant of Jacobians by finite differences, layer by layer."""
    hooked = model("gpt2")
    batch = hooked.batch("abc")
    states = states_of(hooked, batch)[:, 0]
    columns, width = states.shape[1:]
    step = 1e-5
    with hooked.blocks(batch) as blocks:

        def push(layer: int, x: Tensor, v: Tensor) -> Tensor:
            return pushed(lambda y: blocks.run(layer, y)[0], x, v)

        def jacobian(layer: int, function: object, way: Tensor) -> Tensor:
            x = states[layer - 1]
            ends = [function(blocks.run(layer, x + s * step * way)[0]) for s in (1, -1)]  # type: ignore[operator]
            return ((ends[0] - ends[1]) / (2 * step)).flatten(1)

        every = torch.eye(columns * width, dtype=torch.float64).view(-1, columns, width)
        found = log_stretches(push, list(states), len(every), radial=True).sum(1)
        expected = [slogdet(jacobian(at, lambda y: y, every))[1] for at in (1, 2, 3)]
        # 48 logs, each to the 1e-9 of a difference of 1e-16 over 1e-5, of less for small ones.
        torch.testing.assert_close(found, torch.stack(expected), atol=1e-5, rtol=0)

        count = columns * (width - 1)
        found = log_stretches(push, list(states), count).sum(1)
        for layer in (1, 2, 3):
            x = states[layer - 1]
            basis = frame(x, count, 7, radial=False)
            lengths = vector_norm(x, dim=-1, keepdim=True)
            unit = jacobian(
                layer, lambda y: y / vector_norm(y, dim=-1, keepdim=True), basis * lengths
            )
            assert float(found[layer - 1]) == pytest.approx(
                float(svdvals(unit).log().sum()), abs=1e-5
            )


def test_frames_are_orthonormal_tangents() -> None:
    states = random(3, 8)
    drawn = frame(states, 5, 0, radial=False)
    gram = torch.einsum("itd,jtd->ij", drawn, drawn)
    torch.testing.assert_close(gram, torch.eye(5, dtype=torch.float64), **EXACT)
    torch.testing.assert_close(tangent(drawn, states), drawn, **EXACT)
    assert float((drawn * states).sum(-1).abs().max()) < 1e-12


# --- orders ----------------------------------------------------------------------------------


class Toy:
    """A block of linear branches, x -> x + Ax -> ... + B(...)."""

    def __init__(self, a: Tensor, b: Tensor) -> None:
        self.parts = {"attention": a, "mlp": b}

    def branch(self, layer: int, part: str, states: Tensor) -> Tensor:
        return states @ self.parts[part].T

    def run(self, layer: int, states: Tensor) -> tuple[Tensor, None]:
        between = states + self.branch(layer, "attention", states)
        return between + self.branch(layer, "mlp", between), None


def test_orders_are_products_of_their_parts() -> None:
    a, b, states = random(4, 4), random(4, 4, seed=1), random(2, 3, 4, seed=2)
    one = torch.eye(4, dtype=torch.float64)
    block = (one + b) @ (one + a)
    expected = {
        "attention_first": block,
        "mlp_first": (one + a) @ (one + b),
        "parallel": one + a + b,
        "strang_attention": (one + a / 2) @ (one + b) @ (one + a / 2),
        "strang_mlp": (one + b / 2) @ (one + a) @ (one + b / 2),
        "two_steps": torch.matrix_power((one + block) / 2, 2),
    }
    assert set(expected) == set(ORDERS)
    for order, matrix in expected.items():
        found = reordered(Toy(a, b), 1, order, states)
        torch.testing.assert_close(found, states @ matrix.T, **EXACT)


@pytest.mark.parametrize("family", KINDS)
def test_a_models_own_order_is_the_model(family: str) -> None:
    hooked = model(family)
    batch = hooked.batch(["abcdef", "ghijkl"])
    states, parallel = states_of(hooked, batch), hooked.anatomy.parallel
    (own,) = set(ORDERS) - set(orders_of(parallel=parallel))
    with hooked.blocks(batch) as blocks:
        for layer, (before, after) in enumerate(pairwise(states), start=1):
            found = reordered(blocks, layer, own, before)
            torch.testing.assert_close(found, after, atol=1e-12, rtol=0)
            for order in orders_of(parallel=parallel):
                assert not torch.allclose(reordered(blocks, layer, order, before), after)


def test_the_loss_is_the_mean_cross_entropy_of_next_tokens() -> None:
    hooked = model("gpt2")
    batch = hooked.batch(["abcdef", "ghijkl"])
    logits = hooked.hf(batch.ids).logits.detach()
    expected = torch.stack(
        [torch.nn.functional.cross_entropy(logits[i, :-1], batch.ids[i, 1:]) for i in (0, 1)]
    )
    found = loss(hooked, states_of(hooked, batch)[-1].repeat(2, 1, 1), batch.ids)
    torch.testing.assert_close(found, expected.repeat(2), **EXACT)
