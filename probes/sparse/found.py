"""What sparse probes have found, to go on from: a feature's units, and its direction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from probes.sparse.rows import of_own_units
from workbench.errors import ResultError, SettingError
from workbench.models.edits import Edit
from workbench.models.positions import Positions
from workbench.models.protocol import Model
from workbench.models.steering import Steer
from workbench.results import Result

if TYPE_CHECKING:
    import xarray as xr

    from workbench.prompts import Prompts

__all__ = ["KINDS", "Direction", "Kind", "ProbeResult"]

Kind = Literal["difference", "probe"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Direction:
    """A direction in the activations of one site, in their own scale: strength s adds s x vector.

    Attributes:
        feature, site, layer: what it is of.
        kind: "difference": the mean of the training examples that have the feature less the mean of those
            that have not, so that strength 1 goes as far as the classes lie apart; "probe": w / |w|^2
            of a sparse probe w . a + b, so that strength s moves its logit by s, and no unit else.
        vector: [units], float64.
    """

    feature: str
    site: str
    layer: int
    kind: Kind
    vector: Tensor

    def steer(self, model: Model, strength: float) -> Steer:
        """As a model takes it: what is added to a position's value, in its shape."""
        vector = self.vector
        if self.site == "z":
            vector = vector.view(model.n_heads, -1)
        return Steer((self.site, self.layer), vector, strength)

    def edit(self, model: Model, strength: float, positions: Positions = "all") -> Edit:
        """An edit of one pass, for `read`, `intervene` and `generate`, on every engine."""
        return self.steer(model, strength).edit(positions)

    def on(self, model: Model, strength: float) -> Model:
        """A view of the model that is steered in every pass, for every instrument.

        Raises:
            UnsupportedError: the engine, or the site, allows edits of single passes alone.
        """
        return model.with_steering([self.steer(model, strength)])

    def shuffled(self, seed: int) -> Direction:
        """A control: the same entries at units drawn anew, with signs drawn anew; of equal norm."""
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self.vector), generator=generator)
        signs = 2 * torch.randint(2, (len(order),), generator=generator) - 1
        vector = self.vector[order] * signs
        return Direction(self.feature, self.site, self.layer, self.kind, vector)


class ProbeResult(Result):
    """The result of `SparseProbe`; `ProbeResult.load` reads a saved one.

    One that was measured together with other instruments' is `ProbeResult(result.data)`. What it goes on
    from are the site's own units, not the latents of SAEs that were probed beside them.

    >>> found = SparseProbe()(model, prompts)  # doctest: +SKIP
    >>> steered = found.direction("plural", layer=3).on(model, 2.0)  # doctest: +SKIP
    >>> LogitLens()(steered, "The key")  # doctest: +SKIP
    """

    def __init__(self, data: Any) -> None:
        super().__init__(data)
        if self.instrument != "sparse_probe":
            raise ResultError(f"a result of {self.instrument}: expected one of sparse_probe")

    @property
    def site(self) -> str:
        """Where its units are."""
        return str(self.provenance["settings"]["site"])

    @property
    def layers(self) -> list[int]:
        """The layers that were probed."""
        return [int(layer) for layer in self._own["layer"].values]

    @property
    def width(self) -> int:
        """How many units the site has."""
        return self._own.sizes["unit"]

    @cached_property
    def _own(self) -> xr.Dataset:
        """What was found in the site's own units; latents of SAEs are no part of it."""
        return of_own_units(self.data)

    def feature(self, name: str = "") -> str:
        """The feature of this name; the only one where it is empty.

        Raises:
            SettingError: there is none of that name, or several to choose from.
        """
        known = [str(one) for one in self.data["feature"].values]
        if name in known:
            return name
        if not name and len(known) == 1:
            return known[0]
        raise SettingError(f"feature is {name!r}: expected one of {', '.join(known)}")

    def units(self, feature: str, layer: int, k: int | None = None) -> list[int]:
        """The units of the probe of a feature at a layer, by falling weight; of the largest k where None."""
        return [unit for unit, _ in self._weights(feature, layer, k)]

    def direction(
        self,
        feature: str = "",
        layer: int | None = None,
        kind: Kind = "difference",
        k: int | None = None,
    ) -> Direction:
        """The direction of a feature at a layer.

        Args:
            feature: may be empty where there is one alone.
            layer: where None, the one whose probe does best on validation prompts.
            kind: see `Direction`.
            k: of the probe; the largest where None.

        Raises:
            SettingError: there is no such feature, layer or k.
            ResultError: the probe's weights are all 0, which is no direction.
        """
        if kind not in KINDS:
            raise SettingError(f"direction {kind!r}: expected one of {', '.join(KINDS)}")
        feature = self.feature(feature)
        layer = self.best_layer(feature, k) if layer is None else layer
        whole = self._own["difference"].sel(feature=feature, layer=self._layer(layer))
        vector = torch.from_numpy(np.array(whole.values, dtype=np.float64))
        if kind == "probe":
            vector = torch.zeros_like(vector)
            for unit, weight in self._weights(feature, layer, k):
                vector[unit] = weight
            vector = vector / vector.square().sum()
        if not vector.isfinite().all() or not vector.any():
            raise ResultError(f"{feature!r}, layer {layer}: {kind} is 0, which is no direction")
        return Direction(feature, self.site, layer, kind, vector)

    def best_layer(self, feature: str, k: int | None = None) -> int:
        """The layer of the greatest F1 on validation prompts."""
        validation = self._own["validation_f1"].sel(feature=self.feature(feature), k=self._k(k))
        return int(validation["layer"].values[validation.values.argmax()])

    def ablate(self, model: Model, prompts: Prompts, **settings: Any) -> Result:
        """The loss in class and out of it without the probe's units; settings of `ProbeAblation`."""
        from probes.steering.ablation import ProbeAblation

        return ProbeAblation(**settings).of(self)(model, prompts)

    def steer(self, model: Model, prompts: Prompts, **settings: Any) -> Result:
        """The answers under steering by its directions; settings of `Steering`."""
        from probes.steering.instrument import Steering

        return Steering(**settings).of(self)(model, prompts)

    def _weights(self, feature: str, layer: int, k: int | None) -> Sequence[tuple[int, float]]:
        cell = self._own.sel(feature=self.feature(feature), layer=self._layer(layer), k=self._k(k))
        both = zip(cell["units"].values.tolist(), cell["weight"].values.tolist(), strict=True)
        return [(unit, weight) for unit, weight in both if unit >= 0]

    def _layer(self, layer: int) -> int:
        if layer not in self.layers:
            known = ", ".join(map(str, self.layers))
            raise SettingError(f"layer {layer} was not probed: expected one of {known}")
        return layer

    def _k(self, k: int | None) -> int:
        known = [int(one) for one in self.data["k"].values]
        if k is not None and k not in known:
            raise SettingError(
                f"k={k} was not probed: expected one of {', '.join(map(str, known))}"
            )
        return known[-1] if k is None else k
