"""Instruments of a plug-in package, one of each shape, as unlike the built-in ones as they may be."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch

import workbench as wb

PARTS = ["<b>left</b>", "right"]
MOST_LAYERS = 20


@dataclass(frozen=True)
class Strength(wb.Reading):
    """How long each state is.

    Attributes:
        power: what the length is raised to.
    """

    power: int = 1
    name: ClassVar[str] = "strength"
    title: ClassVar[str] = "Strength"
    citation: ClassVar[wb.Citation] = wb.Citation("", "")

    def reads(self, model: wb.Model) -> wb.Read:
        return wb.Read("resid_post")

    def coords(self, model: wb.Model) -> Mapping[str, Sequence[Any]]:
        return {"layer": list(range(model.n_layers + 1))}

    def measure(self, captures: wb.Captures) -> wb.Measured:
        lengths = captures.stack("resid_post").float().norm(dim=-1)
        return {"length": wb.Named(("layer", "place"), lengths**self.power, "units")}


@dataclass(frozen=True)
class Swing(wb.Driving):
    """A number for each layer and part, of the last position alone.

    Attributes:
        folder: pipes of a test that it waits for (see `tests.jobs.gates`); it does not wait where
            this is empty.
        direction: whether the numbers rise or fall with the layer.
        scale: what they are multiplied with.
    """

    folder: str = ""
    direction: Literal["up", "down"] = "up"
    scale: float = 1.0
    name: ClassVar[str] = "swing"
    title: ClassVar[str] = "Swing <i>"
    citation: ClassVar[wb.Citation] = wb.Citation("", "")

    def __post_init__(self) -> None:
        if self.scale == 0:
            raise wb.SettingError("swing: scale is 0: expected another number")

    def prepare(self, model: wb.Model) -> None:
        if model.n_layers > MOST_LAYERS:
            raise wb.UnsupportedError(
                f"swing: {model.n_layers} layers: expected at most {MOST_LAYERS}"
            )

    def coords(self, model: wb.Model) -> Mapping[str, Sequence[Any]]:
        return {"layer": list(range(model.n_layers + 1)), "part": PARTS}

    def drive(self, model: wb.Model, batch: wb.Batch) -> tuple[wb.Places, wb.Measured]:
        if self.folder:
            _wait(Path(self.folder))
        places = model.capture(batch, ["resid_pre"], "last").places
        rise = torch.arange(model.n_layers + 1.0) * self.scale
        rise = rise.flip(0) if self.direction == "down" else rise
        parts = torch.stack([rise, -rise], dim=1)
        values = parts[:, :, None].expand(-1, -1, len(places)).clone()
        return places, {"swing": wb.Named(("layer", "part", "place"), values, "turns")}


@dataclass(frozen=True)
class WholeSet(wb.SetLevel):
    """The mean length of the states of all prompts together."""

    name: ClassVar[str] = "whole_set"
    title: ClassVar[str] = "Whole set"
    citation: ClassVar[wb.Citation] = wb.Citation("", "")

    def reads(self, model: wb.Model) -> wb.Read:
        return wb.Read("resid_post")

    def coords(self, model: wb.Model) -> Mapping[str, Sequence[Any]]:
        return {"layer": list(range(model.n_layers + 1))}

    def start(self, model: wb.Model) -> wb.State:
        return {"sum": torch.zeros(model.n_layers + 1), "count": torch.zeros(())}

    def update(self, state: wb.State, captures: wb.Captures) -> wb.State:
        lengths = captures.stack("resid_post").float().norm(dim=-1)
        return {"sum": state["sum"] + lengths.sum(1), "count": state["count"] + lengths.shape[1]}

    def merge(self, left: wb.State, right: wb.State) -> wb.State:
        return {name: left[name] + right[name] for name in left}

    def finish(self, state: wb.State) -> wb.Measured:
        return {"mean_length": wb.Named(("layer",), state["sum"] / state["count"], "units")}


def _wait(folder: Path) -> None:
    """Say that a batch has begun, and wait for leave to finish it."""
    with (folder / "begun").open("wb", buffering=0) as begun:
        begun.write(b".")
    gate = os.open(folder / "gate", os.O_RDONLY)
    os.read(gate, 1)
    os.close(gate)
