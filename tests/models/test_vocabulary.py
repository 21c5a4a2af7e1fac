"""Parts of the vocabulary at a time, against one product."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from workbench.models.vocabulary import LEAST, in_parts


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(24, 96), (2, 5, 96), (1, 96)])
@torch.no_grad()
def test_logits_are_those_of_one_product(shape: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    head = nn.Linear(96, LEAST + 1000, bias=bias)
    states = torch.randn(shape)
    exact = head.double()(states.double())
    head.float()
    with in_parts(head):
        found = head(states)
    # A sum of n products is off by at most n eps of the sum of their sizes, however it is ordered.
    sizes = states.abs().double() @ head.weight.abs().double().T + (bias and head.bias.abs())
    assert found.shape == exact.shape
    assert ((found - exact).abs() <= 97 * 2**-24 * sizes).all()


def test_every_product_is_of_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    head = nn.Linear(8, LEAST, bias=False).requires_grad_(False)
    sizes: list[int] = []
    product = torch.mm
    monkeypatch.setattr(
        torch, "mm", lambda a, b, out: sizes.append(b.shape[1]) or product(a, b, out=out)
    )
    with in_parts(head):
        head(torch.randn(3, 8))
    assert sizes == [LEAST // 4] * 4


def test_a_gradient_passes() -> None:
    head = nn.Linear(8, LEAST)
    states = torch.randn(3, 8, requires_grad=True)
    (own,) = torch.autograd.grad(head(states).sum(), states)
    with in_parts(head):
        (found,) = torch.autograd.grad(head(states).sum(), states)
    assert torch.equal(found, own)


@pytest.mark.parametrize(
    "head",
    [nn.Linear(8, LEAST - 1), nn.Linear(8, LEAST).double(), nn.Linear(8, LEAST).bfloat16(), None],
)
def test_others_are_left_alone(head: nn.Linear | None) -> None:
    with in_parts(head):
        assert head is None or "forward" not in head.__dict__
