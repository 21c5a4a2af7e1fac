"""Instruments of each shape, and one that refuses some prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

import workbench as wb

NO_CITATION = wb.Citation("A toy measured {model} ({settings})", "@misc{toy}")


@dataclass(frozen=True)
class Picky(wb.Reading):
    """Norms by layer; the prompts with a forbidden word cannot be measured."""

    forbidden: str = "bad"

    name: ClassVar[str] = "picky"
    title: ClassVar[str] = "Picky norms"
    citation: ClassVar[wb.Citation] = NO_CITATION

    def reads(self, model: wb.Model) -> wb.Read:
        return wb.Read(("resid_post",), "all")

    def coords(self, model: wb.Model) -> Mapping[str, Sequence[Any]]:
        return {"layer": list(range(model.n_layers + 1))}

    def measure(self, captures: wb.Captures) -> wb.Measured:
        for encoded in captures.batch.prompts:
            if self.forbidden in encoded.prompt.text:
                raise wb.PromptError(f"{self.forbidden!r} in {encoded.prompt.text!r}")
        norms = captures.stack("resid_post").norm(dim=-1)
        return {"norm": wb.Named(("layer", "place"), norms, "1")}


@dataclass(frozen=True)
class MeanState(wb.SetLevel):
    """Mean of the state after every block at the last position, over the set."""

    name: ClassVar[str] = "mean_state"
    title: ClassVar[str] = "Mean state"
    citation: ClassVar[wb.Citation] = NO_CITATION

    def reads(self, model: wb.Model) -> wb.Read:
        return wb.Read(("resid_post",), "last")

    def coords(self, model: wb.Model) -> Mapping[str, Sequence[Any]]:
        return {"layer": list(range(model.n_layers + 1))}

    def start(self, model: wb.Model) -> wb.State:
        sums = torch.zeros(model.n_layers + 1, dtype=torch.float64)
        return {"sum": sums, "count": torch.zeros(1, dtype=torch.int64)}

    def update(self, state: wb.State, captures: wb.Captures) -> wb.State:
        values = captures.stack("resid_post").mean(-1).double()
        return {"sum": state["sum"] + values.sum(1), "count": state["count"] + values.shape[1]}

    def merge(self, left: wb.State, right: wb.State) -> wb.State:
        return {name: left[name] + right[name] for name in left}

    def finish(self, state: wb.State) -> wb.Measured:
        return {"mean": wb.Named(("layer",), state["sum"] / state["count"], "1")}


@dataclass(frozen=True)
class BestNext(wb.Driving):
    """Log-probability of each prompt's best next token, by a forward of its own."""

    name: ClassVar[str] = "best_next"
    title: ClassVar[str] = "Best next"
    citation: ClassVar[wb.Citation] = NO_CITATION

    def coords(self, model: wb.Model) -> Mapping[str, Sequence[Any]]:
        return {}

    def drive(self, model: wb.Model, batch: wb.Batch) -> tuple[wb.Places, wb.Measured]:
        caught = model.capture(batch, ["logits"], "last")
        best = caught["logits", model.n_layers].log_softmax(-1).amax(-1)
        return caught.places, {"best": wb.Named(("place",), best, "nat")}
