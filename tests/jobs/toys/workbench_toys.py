"""Instruments of a plug-in package: one that waits, and some that fail in different ways."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import xarray as xr

import workbench as wb


class Toy(wb.Driving):
    """One number a prompt: how many tokens it has."""

    citation: ClassVar[wb.Citation] = wb.Citation("", "")

    def coords(self, model: wb.Model) -> Mapping[str, Sequence[Any]]:
        return {}

    def drive(self, model: wb.Model, batch: wb.Batch) -> tuple[wb.Places, wb.Measured]:
        places = model.capture(batch, ["resid_pre"], "last").places
        lengths = torch.tensor([len(prompt) for prompt in batch.prompts])
        return places, {"length": wb.Named(("place",), lengths, "tokens")}

    @classmethod
    def rows(cls, data: xr.Dataset) -> Iterator[dict[str, Any]]:
        raise NotImplementedError

    @classmethod
    def figure(cls, data: xr.Dataset, *, theme: str = "light", **options: Any) -> Any:
        raise NotImplementedError


@dataclass(frozen=True)
class Gate(Toy):
    """Says in one pipe of `folder` that it has begun a batch, and waits for a byte in the other."""

    folder: str
    name: ClassVar[str] = "toy_gate"
    title: ClassVar[str] = "Gate"

    def drive(self, model: wb.Model, batch: wb.Batch) -> tuple[wb.Places, wb.Measured]:
        with open(f"{self.folder}/begun", "wb", buffering=0) as begun:
            begun.write(b".")
        gate = os.open(f"{self.folder}/gate", os.O_RDONLY)
        os.read(gate, 1)
        os.close(gate)
        return super().drive(model, batch)


@dataclass(frozen=True)
class Broken(Toy):
    """Has a programmer's error."""

    name: ClassVar[str] = "toy_broken"
    title: ClassVar[str] = "Broken"

    def drive(self, model: wb.Model, batch: wb.Batch) -> tuple[wb.Places, wb.Measured]:
        raise TypeError("one\ntoo many")


@dataclass(frozen=True)
class Picky(Toy):
    """Refuses every model."""

    name: ClassVar[str] = "toy_picky"
    title: ClassVar[str] = "Picky"

    def prepare(self, model: wb.Model) -> None:
        raise wb.SettingError(f"toy_picky: {model.n_layers} layers\nare not to its liking")


@dataclass(frozen=True)
class Late(Toy):
    """Refuses in the middle of a pass."""

    name: ClassVar[str] = "toy_late"
    title: ClassVar[str] = "Late"

    def drive(self, model: wb.Model, batch: wb.Batch) -> tuple[wb.Places, wb.Measured]:
        raise wb.PromptError("toy_late: this prompt will not do")
