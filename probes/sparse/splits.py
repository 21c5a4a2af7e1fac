"""Training, validation and test, by whole groups: no prompt or document lies on both sides."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from workbench.errors import PromptError

__all__ = ["PARTS", "Part", "given_split", "group_codes", "split_by_group"]

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = get_args(Part)
OTHERWISE = {"val": "validation", "valid": "validation", "dev": "validation"}
SHARES = (0.6, 0.2, 0.2)


def group_codes(groups: Sequence[Hashable]) -> Tensor:
    """[n] the groups as 0, 1, ... in the order in which they first occur."""
    seen: dict[Hashable, int] = {}
    return torch.tensor([seen.setdefault(group, len(seen)) for group in groups])


def split_by_group(
    labels: Tensor,
    groups: Tensor,
    feature: str,
    *,
    shares: tuple[float, float, float] = SHARES,
    seed: int = 0,
) -> Tensor:
    """[n] 0, 1, 2 for training, validation, test.

    Groups with positives alone, with negatives alone, and with both are dealt out separately, in an
    order drawn from `seed`, so that every part has its share of each.

    Args:
        labels: [n] 0 and 1.
        groups: [n] codes from 0 (see `group_codes`).
        feature: what errors call the feature.

    Raises:
        PromptError: the labels are of one class, or a class stands in fewer groups than there are
            parts, so that a part would lack it.
    """
    _require_both(labels, groups, feature)
    count = int(groups.max()) + 1
    has = torch.zeros(count, 2, dtype=torch.bool)
    has[groups, labels.long()] = True
    kind = has.long() @ torch.tensor([1, 2])
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    part = torch.full((count,), -1)
    for one in (3, 1, 2):
        own = order[kind[order] == one]
        part[own] = _dealt(len(own), shares)
    found = part[groups]
    return found if _complete(found, labels) else _least(part, has, order)[groups]


def given_split(splits: Sequence[str], labels: Tensor, groups: Tensor, feature: str) -> Tensor:
    """[n] the same from names that the prompts' lines give: train, validation (or val), test.

    Raises:
        PromptError: another name, a group in two parts, or a part that lacks a class.
    """
    names = [OTHERWISE.get(name, name) for name in splits]
    if unknown := sorted(set(names) - set(PARTS)):
        raise PromptError(f"split {unknown[0]!r}: expected one of {', '.join(PARTS)}")
    found = torch.tensor([PARTS.index(name) for name in names])
    pairs = torch.unique(torch.stack([groups, found]), dim=1)[0]
    if len(pairs) > len(set(pairs.tolist())):
        raise PromptError(f"feature {feature!r}: a group stands in two splits: expected one")
    for part, name in enumerate(PARTS):
        if len(set(labels[found == part].tolist())) < 2:
            raise PromptError(f"feature {feature!r}: split {name} lacks a class: expected both")
    return found


def _require_both(labels: Tensor, groups: Tensor, feature: str) -> None:
    for value, name in ((1, "positives"), (0, "negatives")):
        own = set(groups[labels == value].tolist())
        if not own:
            raise PromptError(
                f"feature {feature!r} has no {name} among {len(labels)} examples: expected both classes"
            )
        if len(own) < len(PARTS):
            raise PromptError(
                f"feature {feature!r}: its {name} stand in {len(own)} groups: expected at least "
                f"{len(PARTS)}, one each for training, validation and test"
            )


def _dealt(count: int, shares: tuple[float, float, float]) -> Tensor:
    """[count] parts in these shares, every part having one where there are three."""
    ends = torch.tensor([shares[0], shares[0] + shares[1]], dtype=torch.float64) * count
    part = torch.bucketize(torch.arange(count) + 0.5, ends)
    if count >= len(PARTS):
        for wanted in (1, 2):
            if not (part == wanted).any():
                part[-wanted] = wanted
    return part


def _complete(part: Tensor, labels: Tensor) -> bool:
    return all(len(set(labels[part == one].tolist())) == 2 for one in range(len(PARTS)))


def _least(part: Tensor, has: Tensor, order: Tensor) -> Tensor:
    """Move a group to each part that lacks a class, from training, which has most."""
    part = part.clone()
    for one in (1, 2, 0):
        for value in (0, 1):
            if not has[part == one, value].any():
                able = [g for g in order.tolist() if has[g, value] and _spare(part, has, g)]
                part[able[-1]] = one
    return part


def _spare(part: Tensor, has: Tensor, group: int) -> bool:
    """Whether its part keeps both of the group's classes without it."""
    others = part == part[group]
    others[group] = False
    return bool((has[others].any(0) | ~has[group]).all())
