"""A clean and a corrupted run that are open to be patched: in single blocks, or in the whole forward."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Protocol

from torch import Tensor

from probes.causal.cells import Cell, Table
from probes.causal.contrast import Contrast
from probes.causal.differences import Difference
from probes.causal.metrics import Goal, Metric, scores
from probes.causal.restarts import below, restarts, whole_table
from probes.causal.runs import Run, recorded
from probes.causal.scorer import Scorer
from probes.causal.sweep import sweep
from workbench.models.batch import Batch
from workbench.models.blocks import Blocks
from workbench.models.protocol import Model
from workbench.models.sites import Site

__all__ = ["Runs", "restarted", "waves"]

CPU_TOKENS = 1024  # in one call of a block; beyond about 2,000 a token costs more
CUDA_TOKENS = 65536
LOGITS = 2**24  # entries of the logits that are held at once


class Runs(Protocol):
    """The clean and the corrupted run, open to be patched.

    Attributes:
        clean: [prompts, tokens, vocabulary] logits at the last columns.
        corrupted: [prompts * samples, tokens, vocabulary].
    """

    clean: Tensor
    corrupted: Tensor

    def ends(self, goal: Goal, score: Scorer) -> tuple[Tensor, Tensor]:
        """Scores of both runs, [prompts] and [prompts * samples], as `patched` scores its own."""

    def patched(
        self, cells: Sequence[Cell], score: Scorer
    ) -> Iterator[tuple[Sequence[int], Tensor]]:
        """Indices of some cells, and the scores [n, rows] of the runs with each put in."""

    def block_tokens(self) -> int:
        """How many tokens have passed through a block so far."""


def _ends(runs: Runs, goal: Goal, score: Scorer) -> tuple[Tensor, Tensor]:
    """From the runs' logits."""
    return scores(score.metric, runs.clean, goal, runs.clean), score(runs.corrupted)[0]


@contextmanager
def waves(
    model: Model, contrast: Contrast, names: Sequence[str], *, denoising: bool
) -> Iterator[Runs]:
    """Runs on single blocks: what comes after a cell that is put in is all that is run again."""
    with ExitStack() as stack:
        own = stack.enter_context(model.blocks(contrast.batch))
        other = contrast.other
        blocks = (own, own if other is None else stack.enter_context(model.blocks(other)))
        clean = recorded(own, contrast.clean.flatten(0, 1), names)
        shortest = min(batch.ids.shape[1] for batch in contrast.batches)
        corrupted = recorded(
            blocks[1],
            contrast.corrupted.flatten(0, 1),
            names,
            behind=clean.repeated(contrast.samples),
            first=min(contrast.same, shortest - 1) if own.apart else 0,
        )
        yield _Waves(model, blocks, contrast, clean, corrupted, denoising)


class _Waves:
    """Runs on single blocks: see `sweep`."""

    def __init__(
        self,
        model: Model,
        blocks: Sequence[Blocks],
        contrast: Contrast,
        clean: Run,
        corrupted: Run,
        denoising: bool,
    ) -> None:
        self.model, self.tail = model, contrast.goal.tokens
        self.every, self.blocks = blocks, blocks[denoising]
        self.clean, self.corrupted = self._logits(clean), self._logits(corrupted)
        self.finals = [run.states[-1][:, -1] for run in (clean, corrupted)]
        clean = clean.repeated(contrast.samples)
        self.base, self.source = (corrupted, clean) if denoising else (clean, corrupted)
        self.tables = {"source": self.source.table, "base": self.base.table}
        self.same = contrast.same

    def _logits(self, run: Run) -> Tensor:
        return self._read_out(run.states[-1][:, -self.tail :])

    def _read_out(self, states: Tensor) -> Tensor:
        """[rows, tokens, vocabulary] of [rows, tokens, d]."""
        return self.model.readout(states.flatten(0, 1)).view(*states.shape[:2], -1)

    def _direct(self, metric: Metric, goal: Goal) -> Difference | None:
        return Difference.of(self.model, goal) if metric == "logit_difference" else None

    def ends(self, goal: Goal, score: Scorer) -> tuple[Tensor, Tensor]:
        direct = [self._direct(score.metric, each) for each in (goal, score.goal)]
        clean, corrupted = (
            None if one is None else one(states)[0]
            for one, states in zip(direct, self.finals, strict=True)
        )
        if clean is None or corrupted is None:
            return _ends(self, goal, score)
        return clean, corrupted

    def patched(
        self, cells: Sequence[Cell], score: Scorer
    ) -> Iterator[tuple[Sequence[int], Tensor]]:
        limit = CUDA_TOKENS if self.model.device.type == "cuda" else CPU_TOKENS
        direct = self._direct(score.metric, score.goal)
        for indices, finals in sweep(
            self.blocks,
            self.base,
            self.tables,
            cells,
            source=self.source,
            same=self.same,
            tail=self.tail,
            limit=limit,
        ):
            if direct is not None:
                yield indices, direct(finals[:, :, -1].flatten(0, 1))
                continue
            most = max(1, LOGITS // (finals[0, :, :, 0].numel() * self.model.vocab_size))
            for start in range(0, len(indices), most):
                part = finals[start : start + most].flatten(0, 1)
                yield indices[start : start + most], score(self._read_out(part))

    def block_tokens(self) -> int:
        return sum({id(one): one.block_tokens for one in self.every}.values())


@contextmanager
def restarted(
    model: Model, contrast: Contrast, names: Sequence[str], *, denoising: bool, whole: bool
) -> Iterator[Runs]:
    """Runs of the model's own forward, from below each cell, or all of it where `whole`."""
    yield _Restarts(model, contrast, names, denoising, whole)


class _Restarts:
    """Runs on the model's whole forward, restarted or not: see `restarts`."""

    def __init__(
        self,
        model: Model,
        contrast: Contrast,
        names: Sequence[str],
        denoising: bool,
        whole: bool,
    ) -> None:
        self.model, self.whole, self.tail = model, whole, contrast.goal.tokens
        batches = [_repeated(model, batch, contrast.samples) for batch in contrast.batches]
        self.batch = batches[denoising]
        clean = contrast.clean.repeat_interleave(contrast.samples // contrast.clean.shape[1], 1)
        names = [*names, "resid_post"]
        tables = [
            whole_table(model, batch, states.flatten(0, 1), names)
            for batch, states in zip(batches, (clean, contrast.corrupted), strict=True)
        ]
        self.clean, self.corrupted = (self._logits(table) for table in tables)
        self.clean = self.clean[:: contrast.samples]
        base, source = reversed(tables) if denoising else tables
        self.tables = {"source": source, "base": base}
        self._tokens = sum(batch.ids.numel() for batch in batches) * model.n_layers

    def _logits(self, table: Table) -> Tensor:
        states = table[Site("resid_post", self.model.n_layers)][:, -self.tail :]
        return self.model.readout(states.flatten(0, 1)).view(*states.shape[:2], -1)

    def ends(self, goal: Goal, score: Scorer) -> tuple[Tensor, Tensor]:
        return _ends(self, goal, score)

    def patched(
        self, cells: Sequence[Cell], score: Scorer
    ) -> Iterator[tuple[Sequence[int], Tensor]]:
        layers = range(self.model.n_layers + 1)
        states = [self.tables["base"][Site("resid_post", layer)] for layer in layers]
        found = restarts(
            self.model,
            self.batch,
            states,
            self.tables,
            cells,
            tail=self.tail,
            whole=self.whole,
        )
        for index, (cell, logits) in enumerate(zip(cells, found, strict=True)):
            run = self.model.n_layers - (0 if self.whole else below(cell))
            self._tokens += self.batch.ids.numel() * run
            yield [index], score(logits)

    def block_tokens(self) -> int:
        return self._tokens


def _repeated(model: Model, batch: Batch, samples: int) -> Batch:
    """Each row `samples` times, after each other."""
    return model.batch([prompt for prompt in batch.prompts for _ in range(samples)])
