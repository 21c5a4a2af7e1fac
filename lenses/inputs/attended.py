"""The methods that go through the pattern: one block after the other, one prompt at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from lenses.attention.blocks import by_block
from lenses.attention.keys import Keys
from lenses.inputs.mixing import Mixed, alti, value_norms, with_residual
from workbench.instrument import Named
from workbench.models.batch import Batch, Places
from workbench.models.captures import Captures
from workbench.models.protocol import Model

__all__ = ["BY_HEAD", "BY_LAYER", "GRADIENTS", "METHODS", "UNITS", "attended"]

BY_HEAD = ("raw", "value_norm")
BY_LAYER = ("alti", "rollout", "alti_rollout")
GRADIENTS = ("gradient_x_input", "integrated_gradients")
METHODS = (*BY_HEAD, *BY_LAYER, *GRADIENTS)
UNITS = MappingProxyType(
    dict.fromkeys(METHODS, "share")
    | {"raw": "attention weight", "value_norm": "residual stream units"}
    | dict.fromkeys(GRADIENTS, "logit")
)


def attended(
    model: Model, batch: Batch, queries: Places, methods: Sequence[str]
) -> dict[str, Named]:
    """The methods that go through the pattern, one block after the other."""
    sites = ["pattern"]
    sites += ["v"] if {"value_norm", "alti", "alti_rollout"} & {*methods} else []
    sites += ["z", "resid_pre"] if {"alti", "alti_rollout"} & {*methods} else []
    layers: dict[str, list[Tensor]] = {name: [] for name in methods}
    rolled: dict[tuple[str, int], Tensor] = {}
    for layer, captures in by_block(model, batch, sites):
        keys = Keys.of(batch, captures.places, causal=model.causal).within(model.window(layer))
        parts: dict[str, list[Tensor]] = {name: [] for name in methods}
        for row in range(len(batch)):
            one = _Layer.of(captures, keys, layer, row)
            asked = queries.position[queries.row == row]
            for name, value in one.attributed(methods, rolled, row).items():
                parts[name].append(_padded(value[asked], batch.ids.shape[1]))
        for name, values in parts.items():
            layers[name].append(torch.cat(values))
    return {name: _layered(name, values) for name, values in layers.items()}


@dataclass(frozen=True)
class _Layer:
    """One prompt in one layer: what its pass has shown, by site, float32 at least."""

    captures: Captures
    layer: int
    here: slice
    visible: Tensor

    @classmethod
    def of(cls, captures: Captures, keys: Keys, layer: int, row: int) -> _Layer:
        where = (captures.places.row == row).nonzero()[:, 0]
        here = slice(int(where[0]), int(where[-1]) + 1)
        return cls(captures, layer, here, keys[here].visible[:, : len(where)])

    def attributed(
        self, methods: Sequence[str], rolled: dict[tuple[str, int], Tensor], row: int
    ) -> dict[str, Tensor]:
        """[T, (heads,) T] by method; `rolled` is the product up to the layer before, and on."""
        found = {"raw": self.pattern}
        if "value_norm" in methods:
            found["value_norm"] = value_norms(self.pattern, self.values, self.heads)
        if {"alti", "alti_rollout"} & {*methods}:
            found["alti"] = alti(self.mixed, self.visible)
        factors = {"rollout": with_residual(self.pattern)}
        factors |= {"alti_rollout": found["alti"]} if "alti" in found else {}
        for name in factors.keys() & {*methods}:
            before = rolled.get((name, row))
            found[name] = factors[name] if before is None else factors[name] @ before
            rolled[name, row] = found[name]
        return {name: found[name] for name in methods}

    @property
    def pattern(self) -> Tensor:
        return self._of("pattern")[..., : len(self.visible)]

    @property
    def values(self) -> Tensor:
        """[T, heads, d_head], a group's value once for each of its heads."""
        values, heads = self._of("v"), self.captures["pattern", self.layer].shape[1]
        shared: Tensor = values.repeat_interleave(heads // values.shape[1], dim=1)
        return shared

    @property
    def heads(self) -> Tensor:
        found: Tensor = self._weights.heads(self.layer).to(self.pattern)
        return found

    @property
    def mixed(self) -> Mixed:
        return Mixed.of(
            self._weights,
            self.layer,
            pattern=self.pattern,
            values=self.values,
            z=self._of("z"),
            states=self._of("resid_pre"),
        )

    @property
    def _weights(self) -> Any:
        return self.captures.weights

    def _of(self, site: str) -> Tensor:
        found = self.captures[site, self.layer][self.here]
        return found.to(torch.promote_types(found.dtype, torch.float32))


def _padded(value: Tensor, width: int) -> Tensor:
    return torch.nn.functional.pad(value, (0, width - value.shape[-1]), value=torch.nan)


def _layered(name: str, layers: list[Tensor]) -> Named:
    if name in BY_HEAD:
        stacked = torch.stack(layers).transpose(1, 2)
        return Named(("layer", "head", "place", "key"), stacked, UNITS[name])
    return Named(("layer", "place", "key"), torch.stack(layers), UNITS[name])
