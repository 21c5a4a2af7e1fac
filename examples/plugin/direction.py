"""An instrument in a package of its own: when does a state point where it will end?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import xarray as xr
from torch import Tensor
from torch.nn.functional import normalize

import workbench as wb
from workbench.figures import Line, Lines
from workbench.figures.generic import at_place


@dataclass(frozen=True)
class Direction(wb.Reading):
    """Cosine between each layer's state and the state after the last block, at the same position.

    The control is the mean cosine with the last states of the prompt's *other* positions: states of
    one layer share much of their direction, so a high cosine by itself says little.

    Attributes:
        center: what is taken off every state first: nothing, or the mean state of the prompt's
            layer.

    Result axes: layer, place. Variables: cosine, control (layer, place); control is NaN in a prompt
    of which one position is read.
    """

    center: Literal["none", "mean"] = "none"

    name: ClassVar[str] = "direction"
    title: ClassVar[str] = "Direction"
    citation: ClassVar[wb.Citation] = wb.Citation(
        "The direction of {model}'s states was compared with that of its last state ({settings})",
        "@misc{direction, title = {An example of a plug-in}}",
    )

    def reads(self, model: wb.Model) -> wb.Read:
        """The state after every block, and the embedding."""
        return wb.Read("resid_post")

    def coords(self, model: wb.Model) -> Mapping[str, Sequence[Any]]:
        """Layers 0..L."""
        return {"layer": list(range(model.n_layers + 1))}

    def measure(self, captures: wb.Captures) -> wb.Measured:
        """Cosines of one batch, prompt by prompt."""
        states = captures.stack("resid_post").float()
        cosine = states.new_empty(states.shape[:2])
        control = torch.empty_like(cosine)
        for row in captures.places.row.unique():
            here = captures.places.row == row
            cosine[:, here], control[:, here] = self._prompt(states[:, here])
        axes = ("layer", "place")
        return {"cosine": wb.Named(axes, cosine, "1"), "control": wb.Named(axes, control, "1")}

    def _prompt(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """[layer, position, d] -> cosine with the own and with the others' last state."""
        if self.center == "mean":
            states = states - states.mean(dim=1, keepdim=True)
        unit = normalize(states, dim=-1)
        every = unit @ unit[-1].T
        own = every.diagonal(dim1=1, dim2=2)
        return own, (every.sum(-1) - own) / (states.shape[1] - 1)

    @classmethod
    def panels(
        cls,
        data: xr.Dataset,
        *,
        prompt: str | int | None = None,
        position: int | None = None,
        site: str | None = None,
    ) -> list[Lines]:
        """The cosine, with its control beside it."""
        place = at_place(data, prompt, position, site)
        lines = {"own last state": Line(place["cosine"])}
        if place["control"].notnull().any():
            lines["other positions'"] = Line(place["control"], control=True)
        return [Lines("cosine", "cosine with the last state", lines, (-1.05, 1.05))]
