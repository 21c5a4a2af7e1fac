"""A block as the field x' = f(x): in N Euler steps of 1/N, and integrated with error control."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.linalg import vector_norm

from probes.flow.fields import Field
from workbench.errors import SettingError

__all__ = ["defects", "euler", "integrated", "require_torchdiffeq"]

MOST_STEPS = 1000
TOO_STIFF = ("max_num_steps", "underflow in dt", "non-finite values")  # what torchdiffeq asserts


def euler(field: Field, states: Tensor, steps: int) -> Tensor:
    """The state after time 1 in `steps` Euler steps x + f(x) / steps; one step is the block itself."""
    for _ in range(steps):
        states = states + field(states) / steps
    return states


def defects(field: Field, states: Tensor, substeps: Sequence[int], limit: int) -> Tensor:
    """How far N Euler steps end from `limit` of them, as a share of the block's own step.

        ||Phi_N(x) - Phi_limit(x)|| / ||f(x)||, Phi_N: N steps of 1/N

    0 where the block is an Euler step of a flow that its field hardly changes along; of order 1 where
    the flow of the same field goes elsewhere. Where N is large it falls as 1/N - 1/limit.

    Args:
        states: [rows, columns, d].
        substeps: the N, [S].

    Returns:
        [rows, columns, S]; not a number where the block adds nothing.
    """
    end, moved = euler(field, states, limit), vector_norm(field(states), dim=-1)
    found = [vector_norm(euler(field, states, n) - end, dim=-1) for n in substeps]
    return torch.where(moved > 0, torch.stack(found) / moved, torch.nan).movedim(0, -1)


def require_torchdiffeq() -> None:
    """Refuse where torchdiffeq is not installed.

    Raises:
        SettingError: it is not.
    """
    try:
        import torchdiffeq  # noqa: F401
    except ImportError:
        raise SettingError(
            "parts has integrated, which needs torchdiffeq: pip install torchdiffeq, or leave it out"
        ) from None


def integrated(field: Field, states: Tensor, tolerance: float) -> Tensor:
    """The flow of the field for time 1, by torchdiffeq's dopri5 (Dormand and Prince, order 5).

    Args:
        states: [rows, columns, d].
        tolerance: on the error of a step, relative to the root mean square of the smallest token's f(x).

    Returns:
        [rows, columns, d]; not numbers where the field is so stiff that it takes over 1,000 steps.
    """
    from torchdiffeq import odeint

    size = vector_norm(field(states), dim=-1)
    least = float(size[size > 0].min()) if (size > 0).any() else 1.0
    atol = tolerance * least / states.shape[-1] ** 0.5
    times = torch.tensor([0.0, 1.0], dtype=states.dtype, device=states.device)
    rounding = 10 * torch.finfo(states.dtype).eps  # below it no step could be short enough
    try:
        found: Tensor = odeint(
            lambda _, x: field(x),
            states,
            times,
            method="dopri5",
            rtol=rounding,
            atol=atol,
            options={"max_num_steps": MOST_STEPS},
        )[-1]
    except AssertionError as error:
        if not str(error).startswith(TOO_STIFF):
            raise
        return torch.full_like(states, torch.nan)
    return found
