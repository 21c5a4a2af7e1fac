"""One prompt's clean and corrupted runs, run and scored from any states between theirs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from probes.causal.contrast import Contrast
from probes.causal.effects import Direction
from probes.causal.metrics import Goal, Metric, scores
from workbench.models.batch import Batch, Places
from workbench.models.captures import Captures, Read
from workbench.models.gradients import Scalar
from workbench.models.protocol import Model
from workbench.models.sites import SiteRequest

__all__ = ["Pair", "by_layer"]

TOKENS = 2048  # of one pass; more take longer a token on a CPU


@dataclass(frozen=True)
class Pair:
    """The clean and the corrupted runs of one prompt.

    Attributes:
        model: the model.
        contrast: of one prompt.
        metric: how a run is scored.
        logits: [1, tokens, vocabulary] of the clean run, where the target is predicted; for KL alone.
    """

    model: Model
    contrast: Contrast
    metric: Metric
    logits: Tensor | None = None

    @classmethod
    def of(cls, model: Model, contrast: Contrast, metric: Metric) -> Pair:
        """Of a contrast of one prompt."""
        if metric != "kl":
            return cls(model, contrast, metric)
        read = Read("logits", slice(-contrast.goal.tokens, None))
        start = (0, contrast.clean[:, 0])
        found = model.read(contrast.batch, [read], start=start)[0]["logits", model.n_layers]
        return cls(model, contrast, metric, found[None])

    @property
    def width(self) -> int:
        """Columns of a run."""
        return self.contrast.width

    @property
    def samples(self) -> int:
        """Corrupted runs."""
        return self.contrast.samples

    @property
    def at(self) -> slice:
        """Where the target is predicted."""
        return slice(-self.contrast.goal.tokens, None)

    def batch(self, rows: int) -> Batch:
        """The prompt `rows` times."""
        return self.model.batch(list(self.contrast.goal.prompts) * rows)

    def scored(self, logits: Tensor) -> Tensor:
        """[rows] scores of logits [rows x tokens, vocabulary] at `at`."""
        shaped = logits.view(-1, self.contrast.goal.tokens, logits.shape[-1])
        goal = self.contrast.goal
        rows = Goal(
            (), *(ids.expand(len(shaped), *ids.shape[1:]) for ids in (goal.targets, goal.foils))
        )
        clean = None if self.logits is None else self.logits.expand(len(shaped), -1, -1)
        return scores(self.metric, shaped, rows, clean)

    def ends(self, direction: Direction, rows: slice = slice(None)) -> tuple[Tensor, Tensor]:
        """Embeddings [1 or samples, width, d] of the base run and of the one whose values are put in."""
        clean, corrupted = self.contrast.clean[0], self.contrast.corrupted[0, rows]
        return (corrupted, clean) if direction == "denoising" else (clean, corrupted)

    def chunks(self) -> Iterator[slice]:
        """Samples of one pass each."""
        each = max(1, TOKENS // self.width)
        for start in range(0, self.samples, each):
            yield slice(start, min(start + each, self.samples))

    def read(self, states: Tensor, sites: Sequence[SiteRequest]) -> tuple[Captures, Tensor]:
        """Values of sites at every position of runs from these embeddings, and the runs' scores."""
        reads = [Read(tuple(sites)), Read("logits", self.at)]
        found, last = self.model.read(self.batch(len(states)), reads, start=(0, states))
        return found, self.scored(last["logits", self.model.n_layers])

    def total(self, noted: list[Tensor]) -> Scalar:
        """The sum of the runs' scores, to be differentiated; each run's is put into `noted`."""

        def scalar(logits: Tensor, where: Places) -> Tensor:
            found = self.scored(logits)
            noted.append(found.detach())
            return found.sum()

        return scalar


def by_layer(captures: Captures, name: str, width: int) -> Tensor:
    """[layer, rows, width, ...] a site at every layer, float32 at least, of rows of one width."""
    found = captures.stack(name)
    found = found.view(len(found), -1, width, *found.shape[2:])
    return found.to(torch.promote_types(found.dtype, torch.float32))
