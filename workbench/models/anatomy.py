"""Where the canonical sites of one loaded model are: its family's table applied to its modules."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from workbench.errors import ModelError, SettingError, UnsupportedError
from workbench.models.attention import HeadsPoint, ProductPoint, has_plain_attention
from workbench.models.families import family_of
from workbench.models.family import Family
from workbench.models.fused import output_width, own_outputs
from workbench.models.hooks import Attachable, Point, Side
from workbench.models.sites import CROSS_SITES, PRODUCT_SITES, Site

__all__ = ["MLP_MAPS", "Anatomy"]


MLP_MAPS = ("ff1", "ff2", "up", "gate", "down")
PARALLEL = "attention and MLP run in parallel; use resid_pre or resid_post"
NO_ENCODER = "it has no encoder to attend to; use attn_out, pattern or z"
OWN_CODE = "it computes attention in its own code, which shows nothing inside; use z or attn_out"


class Anatomy:
    """The parts of a Hugging Face language model, found by name.

    Raises:
        UnsupportedError: the family is not supported.
        ModelError: the model lacks a part that its family has.
    """

    def __init__(self, model: Any, family: Family | None = None) -> None:
        config = model.config
        self.family = family_of(config) if family is None else family
        self.config = config.get_text_config()
        self.blocks: list[nn.Module] = list(_part(model, self.family.blocks).children())
        norm = self.family.final_norm
        self.final_norm: nn.Module = _part(model, norm) if norm else nn.Identity()
        self.head = _head(model, self.family.head)
        self.parallel = self._is_parallel()

    def _is_parallel(self) -> bool:
        flag = self.family.parallel
        return flag if isinstance(flag, bool) else bool(getattr(self.config, flag))

    @property
    def causal(self) -> bool:
        """Whether a token sees only those before it."""
        return self.family.kind != "encoder"

    @property
    def n_layers(self) -> int:
        """How many blocks the model has."""
        return len(self.blocks)

    def window(self, layer: int) -> int | None:
        """How many tokens, itself the last, a token of block `layer` sees; None for all before it."""
        kinds = getattr(self.config, "layer_types", None)
        if kinds is not None and kinds[layer - 1] != "sliding_attention":
            return None
        found = getattr(self.config, "sliding_window", None)
        return None if found is None else int(found)

    def block(self, layer: int) -> nn.Module:
        """Block `layer`, 1..L.

        Raises:
            SettingError: no such block.
        """
        if not 1 <= layer <= self.n_layers:
            raise SettingError(f"no block {layer}: expected 1..{self.n_layers}")
        return self.blocks[layer - 1]

    def part(self, layer: int, path: str) -> nn.Module:
        """The module at `path` inside block `layer`."""
        module: nn.Module = _part(self.block(layer), path)
        return module

    def point(self, site: Site) -> Attachable:
        """Where `site` is read.

        Raises:
            UnsupportedError: a site that this model does not have.
        """
        name, layer = site
        self.require(name)
        if name == "final_norm":
            return Point(self.final_norm, "output")
        if name == "embed" or site == ("resid_post", 0):
            return Point(self.block(1), "input")
        if name == "resid_pre":
            return Point(self.block(layer), "input")
        if name == "resid_post":
            return Point(self.block(layer), "output")
        if name in PRODUCT_SITES:
            return ProductPoint(self._product(layer), name)
        if name == "z":
            projection = self.part(layer, self.family.attn_z)
            return HeadsPoint(projection, int(self.config.num_attention_heads))
        if name in CROSS_SITES:
            return self._cross_point(name, layer)
        return self._inner_point(name, layer)

    def _cross_point(self, name: str, layer: int) -> Attachable:
        attention = self.part(layer, self.family.cross_attention)
        if name == "cross_attn_out":
            return Point(attention, "output")
        if name == "cross_pattern":
            return ProductPoint(attention, "pattern")
        projection = self.part(layer, self.family.cross_z)
        return HeadsPoint(projection, int(self.config.num_attention_heads))

    def _product(self, layer: int) -> nn.Module:
        return self.part(layer, self.family.attn_product or self.family.attention)

    def _inner_point(self, name: str, layer: int) -> Point:
        module = self.part(layer, getattr(self.family, name))
        if name in ("resid_mid", "mlp_act"):
            return Point(module, "input", block=self._flattening(layer))
        block = None if name == "attn_out" else self._flattening(layer)
        return Point(module, "output", scale=self.multiplier, block=block)

    def map_module(self, name: str, layer: int) -> nn.Module:
        """The module of the linear map `name`, which may hold other maps too (see `map_outputs`).

        Raises:
            UnsupportedError: the family has no map of that name.
        """
        return self.part(layer, self.map_path(name))

    def map_point(self, name: str, layer: int, side: Side) -> Point:
        """The input or output of the module that `map_module` gives."""
        flattened = self._flattening(layer) if name in MLP_MAPS else None
        return Point(self.map_module(name, layer), side, block=flattened)

    def map_outputs(self, name: str, layer: int) -> Tensor | None:
        """Which outputs of its module are those of the map `name`; None where all are."""
        layout = self.family.fused.get(self.map_path(name))
        if layout is None:
            return None
        width = output_width(self.map_module(name, layer))
        return own_outputs(name, layout, self.config, width)

    def _flattening(self, layer: int) -> nn.Module | None:
        """The block, where it flattens the batch before its MLP."""
        return self.block(layer) if self.family.flat_mlp else None

    @property
    def multiplier(self) -> float:
        """What the block multiplies a branch's output by before it adds it."""
        name = self.family.multiplier
        return float(getattr(self.config, name)) if name else 1.0

    def gradient_point(self, site: Site) -> Attachable:
        """Where to differentiate at `site`.

        resid_mid enters the rest through a skip connection that no module sees; attn_out enters
        through the same sum alone, so its gradient is the one.
        """
        if site.name == "resid_mid":
            self.require(site.name)
            return self.point(Site("attn_out", site.layer))
        return self.point(site)

    def lack(self, name: str) -> str | None:
        """Why this model has no site `name`; None where it has."""
        if name == "resid_mid" and self.parallel:
            return PARALLEL
        if name in PRODUCT_SITES and not has_plain_attention(self._product(1)):
            return OWN_CODE
        if name in CROSS_SITES and not self.family.cross_attention:
            return NO_ENCODER
        return self.family.lacks.get(name)

    def require(self, name: str) -> None:
        """Refuse a site that this model does not have."""
        if (reason := self.lack(name)) is not None:
            raise UnsupportedError(f"{self.config.model_type} has no {name}: {reason}")

    def map_path(self, name: str) -> str:
        """The path, inside a block, of the module that holds the linear map `name`.

        Raises:
            UnsupportedError: the family has no map of that name.
        """
        if name not in self.family.maps:
            known = f"expected one of {', '.join(self.family.maps)}"
            reason = (self.lack("mlp_act") if name in MLP_MAPS else None) or known
            raise UnsupportedError(f"{self.config.model_type} has no linear map {name!r}: {reason}")
        return self.family.maps[name]


def _head(model: Any, path: str) -> nn.Module:
    """What the last step has of its own; nothing where a config leaves it out."""
    try:
        module: nn.Module = model.get_submodule(path)
    except AttributeError:
        return nn.Identity()
    return module if path else nn.Identity()


def _part(module: Any, path: str) -> Any:
    try:
        return module.get_submodule(path)
    except AttributeError:
        raise ModelError(
            f"{type(module).__name__} has no part {path!r}: expected a language model of its family"
        ) from None
