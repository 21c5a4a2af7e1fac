"""The variables of a patching result: effects of whole sites and of heads, and of each prompt."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from probes.causal.metrics import UNITS
from probes.tracing.measured import Scored, variables
from workbench.instrument import Named
from workbench.models.tokens import EncodedPrompt

__all__ = ["named", "of_prompt"]

WHOLE = ("place", "site", "layer")
BY_HEAD = ("place", "head_site", "layer", "head")
VALUES = ("score", "effect", "normalised")
DIMS = dict.fromkeys(VALUES, WHOLE) | {f"head_{name}": BY_HEAD for name in VALUES}
OWN_UNITS = {
    "normalised": "share",
    "head_normalised": "share",
    "tokens": "token",
    "role": "role",
    "target_id": "token id",
    "top_id": "token id",
    "correct": "truth",
    "group": "number",
    "block_tokens": "block-token",
}


def of_prompt(
    prompt: EncodedPrompt,
    where: Sequence[int],
    tokens: Sequence[int],
    whole: Tensor,
    by_head: Tensor,
    scored: Scored,
) -> dict[str, Tensor]:
    """All variables of one prompt, its places first; those of sites that there are none of left out.

    Args:
        where: position of each place, of several tokens the last.
        tokens: how many are put in together there.
        whole: [site, layer, place] scores.
        by_head: [site, layer, head, place].
        scored: its other runs, of one sample.
    """
    own = variables(prompt, where, whole.permute(2, 0, 1)[..., None], scored)
    shared = {k: v for k, v in own.items() if k not in (*VALUES, "stderr")}
    heads = by_head.permute(3, 0, 1, 2)
    several = torch.tensor(tokens) > 1
    found = {
        **shared,
        "corrupted": own["corrupted"][:, 0],
        "tokens": torch.tensor(tokens),
        "role": own["role"].masked_fill(several, -1),
    }
    if whole.numel():
        found |= {"score": whole.permute(2, 0, 1)}
        found |= {name: own[name] for name in ("effect", "normalised")}
    if by_head.numel():
        found |= {
            "head_score": heads,
            "head_effect": heads - scored.base[0],
            "head_normalised": scored.normalised(heads[..., None]),
        }
    return found


def named(parts: Sequence[dict[str, Tensor]], metric: str) -> dict[str, Named]:
    """The variables of prompts, one after the other."""
    return {
        name: Named(
            DIMS.get(name, ("place",)),
            torch.cat([part[name] for part in parts]),
            OWN_UNITS.get(name, UNITS[metric]),
        )
        for name in parts[0]
    }
