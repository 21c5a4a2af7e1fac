"""transformer-lens' hook names, read as canonical sites on every engine.

transformer-lens counts blocks from 0, so block b is layer b + 1: `blocks.3.hook_resid_post` is
(resid_post, 4). A hook that holds another tensor than any site is refused, never rounded to the
nearest name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from workbench.errors import SettingError

__all__ = ["from_hook", "to_hook"]

IN_BLOCK: Mapping[str, str] = {
    "hook_in": "resid_pre",
    "hook_resid_pre": "resid_pre",
    "hook_resid_mid": "resid_mid",
    "hook_resid_post": "resid_post",
    "hook_out": "resid_post",
    "hook_attn_out": "attn_out",
    "hook_mlp_out": "mlp_out",
    "mlp.hook_post": "mlp_act",
    "attn.hook_rot_q": "q",
    "attn.hook_rot_k": "k",
    "attn.hook_v": "v",
    "attn.hook_pattern": "pattern",
    "attn.hook_z": "z",
}
"""Sites by the hook's name inside its block."""

NEWER = ("hook_in", "hook_out")
"""Names that only transformer-lens' bridges have."""

OUTSIDE: Mapping[str, str] = {"ln_final.hook_out": "final_norm"}
"""Sites by the name of a hook outside the blocks."""

OTHERS: Mapping[str, str] = {
    "hook_embed": "it is the tokens' embedding alone, before positions or a scale join it; ask for "
    "embed, which enters the first block",
    "ln_final.hook_normalized": "it is the norm before its weight; ask for final_norm",
    "attn.hook_q": "it is q before rotary; ask for q, which enters the product",
    "attn.hook_k": "it is k before rotary; ask for k, which enters the product",
}
"""Hooks that hold another tensor than the site of a like name, and what to ask for."""

BLOCK = re.compile(r"blocks\.(\d+)\.(.+)")


def from_hook(name: str) -> tuple[str, int | None] | None:
    """(site, layer) of a hook's name, with layer None outside the blocks; None for no such name.

    Raises:
        SettingError: a hook that is no canonical site.
    """
    if "hook_" not in name:
        return None
    inside = BLOCK.fullmatch(name)
    hook, known = (inside[2], IN_BLOCK) if inside else (name, OUTSIDE)
    if hook not in known:
        raise SettingError(f"hook {name!r} is no canonical site: {_instead(hook, known)}")
    return known[hook], int(inside[1]) + 1 if inside else None


def to_hook(site: str, layer: int) -> str | None:
    """transformer-lens' name of a site inside a block; None where it has none.

    The embedding, which is resid_post at layer 0, enters the first block.
    """
    if (site, layer) == ("resid_post", 0):
        return "blocks.0.hook_resid_pre"
    hooks = {found: hook for hook, found in IN_BLOCK.items() if hook not in NEWER}
    return f"blocks.{layer - 1}.{hooks[site]}" if site in hooks else None


def _instead(hook: str, known: Mapping[str, str]) -> str:
    return OTHERS.get(hook) or f"expected one of {', '.join(known)}"
