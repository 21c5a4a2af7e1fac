"""Where the canonical sites of one loaded model are: its family's table applied to its modules."""

from __future__ import annotations

from typing import Any

from torch import nn

from workbench.errors import ModelError, SettingError, UnsupportedError
from workbench.models.families import family_of
from workbench.models.hooks import Point
from workbench.models.sites import Site

__all__ = ["Anatomy"]


class Anatomy:
    """The parts of a Hugging Face causal language model, found by name.

    Raises:
        UnsupportedError: the family is not supported.
        ModelError: the model lacks a part that its family has.
    """

    def __init__(self, model: Any) -> None:
        config = model.config
        self.family = family_of(config.model_type)
        self.config = config.get_text_config()
        self.blocks: list[nn.Module] = list(_part(model, self.family.blocks).children())
        self.final_norm = _part(model, self.family.final_norm)
        flag = self.family.parallel_flag
        self.parallel = bool(flag) and bool(getattr(self.config, flag))

    @property
    def n_layers(self) -> int:
        """How many blocks the model has."""
        return len(self.blocks)

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

    def point(self, site: Site) -> Point:
        """Where `site` is read.

        Raises:
            UnsupportedError: a site that this model does not have.
        """
        name, layer = site
        if name == "final_norm":
            return Point(self.final_norm, "output")
        if name == "embed" or site == ("resid_post", 0):
            return Point(self.block(1), "input")
        if name == "resid_pre":
            return Point(self.block(layer), "input")
        if name == "resid_post":
            return Point(self.block(layer), "output")
        if name == "resid_mid":
            self.require_resid_mid()
            return Point(self.part(layer, self.family.mid_norm), "input")
        if name == "mlp_act":
            return Point(self.part(layer, self.family.mlp_act), "input")
        return Point(self.part(layer, getattr(self.family, name)), "output")

    def gradient_point(self, site: Site) -> Point:
        """Where to differentiate at `site`.

        resid_mid enters the rest through a skip connection that no module sees; attn_out enters
        through the same sum alone, so its gradient is the one.
        """
        if site.name == "resid_mid":
            self.require_resid_mid()
            return self.point(Site("attn_out", site.layer))
        return self.point(site)

    def require_resid_mid(self) -> None:
        """Refuse resid_mid where both branches of a block read the same state."""
        if self.parallel:
            raise UnsupportedError(
                f"{self.config.model_type} runs attention and MLP in parallel: it has no resid_mid; "
                "use resid_pre or resid_post"
            )

    def map_path(self, name: str) -> str:
        """The path, inside a block, of the MLP's linear map `name`.

        Raises:
            UnsupportedError: the family's MLP has no map of that name.
        """
        if name not in self.family.maps:
            raise UnsupportedError(
                f"{self.config.model_type} has no linear map {name!r}: expected one of "
                f"{', '.join(self.family.maps)}"
            )
        return self.family.maps[name]


def _part(module: Any, path: str) -> Any:
    try:
        return module.get_submodule(path)
    except AttributeError:
        raise ModelError(
            f"{type(module).__name__} has no part {path!r}: expected a causal language model of its family"
        ) from None
