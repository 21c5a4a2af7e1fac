"""Where a bridge has the canonical sites: transformer-lens' hook points, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from typing_extensions import override

from workbench.errors import ModelError, UnsupportedError
from workbench.models.anatomy import Anatomy
from workbench.models.attention import InnerPoint
from workbench.models.hooks import Attachable, Handle, Point, Tap
from workbench.models.sites import PRODUCT_SITES, Site

__all__ = ["BridgeAnatomy"]

HOOKS: Mapping[str, tuple[str, ...]] = {
    "resid_pre": ("hook_resid_pre",),
    "resid_mid": ("hook_resid_mid",),
    "attn_out": ("hook_attn_out",),
    "mlp_out": ("hook_mlp_out",),
    "mlp_act": ("mlp.hook_post",),
    "q": ("attn.hook_rot_q", "attn.hook_q"),
    "k": ("attn.hook_rot_k", "attn.hook_k"),
    "v": ("attn.hook_v",),
    "pattern": ("attn.hook_pattern",),
    "z": ("attn.hook_z",),
}
"""A site's hook inside its block: the first of these that the block has."""


@dataclass(frozen=True)
class LensHandle(Handle):
    """What takes a tap off a hook point, and off its list of hooks."""

    point: Any
    lens: Any

    @override
    def remove(self) -> None:
        self.lens.hook.remove()
        self.point.fwd_hooks.remove(self.lens)


@dataclass(frozen=True)
class BridgePoint:
    """One hook point; taps see what transformer-lens shows its hooks (heads apart, for one)."""

    hook: Any

    def attach(self, tap: Tap) -> Handle:
        """Register `tap` here, after those that are here already."""
        lens = self.hook.add_hook(lambda value, hook: tap(value))
        return LensHandle((), self.hook, lens)


@dataclass(frozen=True)
class BridgeProduct(InnerPoint):
    """q, k, v or pattern at its hook point, [rows, width, heads, d_head or keys]."""

    attention: nn.Module
    name: str
    hook: Any
    sees_prefix = False  # its hooks come before the cache

    @override
    def attach(self, tap: Tap) -> Handle:
        return BridgePoint(self.hook).attach(_by_query(tap) if self.name == "pattern" else tap)


def _by_query(tap: Tap) -> Tap:
    """`tap` for a pattern whose heads come first, [rows, heads, width, keys]."""

    def on_heads(pattern: Tensor) -> Tensor | None:
        new = tap(pattern.transpose(1, 2))
        return None if new is None else new.transpose(1, 2)

    return on_heads


def _child(module: Any, name: str) -> nn.Module:
    """A child by Hugging Face's name, which belongs to the module that a component wraps."""
    inner = getattr(module, "original_component", None)
    found = getattr(module if inner is None else inner, name, None)
    if not isinstance(found, nn.Module):
        raise ModelError(f"{type(module).__name__} has no part {name!r}: expected its family's")
    return found


class BridgeAnatomy(Anatomy):
    """The parts of a `TransformerBridge`: its blocks, its hook points, and the maps inside them.

    Attributes:
        silent: sites inside attention that no forward of this model passes, and why.
        split: linear maps whose module no forward of this model passes, and why.
    """

    def __init__(self, bridge: Any, hf: Any) -> None:
        """`hf` is the model without the bridge, whose norm and head are kept as its last step."""
        super().__init__(bridge.original_model)
        self.hooks: dict[str, Any] = bridge.hook_dict
        self.silent: dict[str, str] = {}
        self.split: dict[str, str] = {}
        self._norm, plain = self.final_norm, Anatomy(hf)
        self.final_norm, self.head = plain.final_norm, plain.head

    @override
    def part(self, layer: int, path: str) -> nn.Module:
        module = self.block(layer)
        for name in path.split("."):
            module = _child(module, name)
        return module

    @override
    def point(self, site: Site) -> Attachable:
        name, layer = site
        self.require(name)
        if name == "final_norm":
            return Point(self._norm, "output")
        # The blocks' own ends, and not their first and last hook, where a block is passed over.
        if layer == 0:
            return Point(self.block(1), "input")
        if name == "resid_post":
            return Point(self.block(layer), "output")
        hook = self.hook(name, layer)
        if name in PRODUCT_SITES:
            return BridgeProduct(self.part(layer, self.family.attention), name, hook)
        return BridgePoint(hook)

    def hook(self, name: str, layer: int) -> Any:
        """The hook point of a site inside block `layer`.

        Raises:
            ModelError: transformer-lens has none for it.
        """
        for hook in HOOKS[name]:
            if (found := self.hooks.get(f"blocks.{layer - 1}.{hook}")) is not None:
                return found
        raise ModelError(
            f"{self.config.model_type}: transformer-lens has no hook {HOOKS[name][0]!r} for {name}: load "
            "the model with engine='torch'"
        )

    @override
    def map_path(self, name: str) -> str:
        path = super().map_path(name)
        if name in self.split:
            model_type = self.config.model_type
            raise UnsupportedError(f"{model_type} has no linear map {name!r}: {self.split[name]}")
        return path

    @override
    def lack(self, name: str) -> str | None:
        return self.silent.get(name) if name in PRODUCT_SITES else super().lack(name)
