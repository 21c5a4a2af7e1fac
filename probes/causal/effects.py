"""The scores of runs into which cells are put, by the cheapest algorithm that the model allows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from probes.causal.cells import LOCAL, Cell, Table, effective
from probes.causal.contrast import Contrast
from probes.causal.differences import Difference
from probes.causal.metrics import Goal, Metric, scores
from probes.causal.restarts import below, restarts, whole_table
from probes.causal.runs import Run, recorded
from probes.causal.sweep import cost, sweep
from workbench.errors import UnsupportedError
from workbench.models.batch import Batch
from workbench.models.blocks import Blocks
from workbench.models.protocol import Model
from workbench.models.sites import Site

__all__ = [
    "ALGORITHMS",
    "Algorithm",
    "Direction",
    "Effects",
    "Scorer",
    "algorithm_of",
    "effects",
    "planned",
]

Direction = Literal["denoising", "noising"]
Algorithm = Literal["wave", "restart", "naive"]
ALGORITHMS: tuple[Algorithm, ...] = get_args(Algorithm)
CPU_TOKENS = 1024  # in one call of a block; beyond about 2,000 a token costs more
CUDA_TOKENS = 65536
LOGITS = 2**24  # entries of the logits that are held at once


@dataclass(frozen=True)
class Effects:
    """Scores of every run.

    Attributes:
        clean: [prompts].
        corrupted: [prompts, samples].
        patched: [cells, prompts, samples].
        top: [prompts] the most probable token of the clean run where the target's first is predicted.
        block_tokens: how many tokens passed through a block, for all of them.
        algorithm: how it was done.
    """

    clean: Tensor
    corrupted: Tensor
    patched: Tensor
    top: Tensor
    block_tokens: int
    algorithm: Algorithm


def algorithm_of(model: Model, names: Collection[str]) -> Algorithm:
    """The cheapest algorithm that gives exact effects of cells at sites of these names.

    Raises:
        UnsupportedError: a model whose tokens see later ones, or of two stacks.
    """
    if not model.causal or len(model.stacks) > 1:
        raise UnsupportedError(
            f"{model.name} is no causal decoder: a token's state there acts on earlier ones too, and its "
            "answer is not behind its prompt; use a decoder such as GPT-2 or Llama"
        )
    own = model.engine in ("torch", "transformer_lens")
    return "wave" if own and set(names) <= {*LOCAL, "resid_post"} else "restart"


def planned(
    cells: Sequence[Cell],
    *,
    algorithm: Algorithm,
    n_layers: int,
    width: int,
    same: int,
    prompts: int = 1,
    samples: int = 1,
    tail: int = 1,
    other: int | None = None,
) -> int:
    """The block-tokens of `effects` with these cells, without doing them; arguments as of a contrast.

    Args:
        width: columns of the run that cells are put into.
        other: columns of the other run, where it has not as many.
    """
    rows = prompts * samples
    sizes = {"n_layers": n_layers, "width": width, "tail": tail, "same": same}
    shorter = list(dict.fromkeys(filter(None, _shortened(cells, **sizes))))
    if algorithm == "wave":
        second = width if other is None else other
        own = prompts * width + rows * (second - min(same, width - 1, second - 1))
        return own * n_layers + rows * cost(shorter, **sizes)
    runs = (n_layers - (0 if algorithm == "naive" else below(cell)) for cell in shorter)
    return rows * (width * (n_layers + sum(runs)) + (other or width) * n_layers)


def _shortened(
    cells: Sequence[Cell], *, n_layers: int, width: int, tail: int, same: int
) -> list[Cell]:
    """What of each cell can act."""
    sizes = {"n_layers": n_layers, "width": width, "tail": tail}
    return [effective(cell, **sizes, same={"source": same}) for cell in cells]


def effects(
    model: Model,
    contrast: Contrast,
    cells: Sequence[Cell],
    *,
    metric: Metric,
    direction: Direction = "denoising",
    algorithm: Algorithm | None = None,
    pace: Callable[[float], None] = lambda _: None,
) -> Effects:
    """Score the clean run, the corrupted runs, and for each cell the run into which it is put.

    Args:
        contrast: the inputs.
        cells: of the tables "source" (the run that values are taken from) and "base" (the run they
            are put into); denoising puts clean values into the corrupted run, noising the reverse.
        algorithm: "wave", "restart" or "naive"; None for the cheapest.
        pace: called with the share that is done.
    """
    names = sorted({put.site.name for cell in cells for put in cell} - {"resid_post"})
    chosen = algorithm_of(model, names) if algorithm is None else algorithm
    goal, denoising = contrast.goal, direction == "denoising"
    shorter = _shortened(
        cells,
        n_layers=model.n_layers,
        width=contrast.batches[denoising].ids.shape[1],
        tail=goal.tokens,
        same=contrast.same,
    )
    # Equal cells are one, and those in which nothing can act are the base run.
    distinct = list(dict.fromkeys(filter(None, shorter)))
    open_runs = _waves if chosen == "wave" else _restarts
    with torch.no_grad(), open_runs(model, contrast, names, direction, chosen) as runs:
        score = Scorer(metric, goal.repeated(contrast.samples), runs.clean)
        clean, corrupted = runs.ends(goal, score)
        corrupted = corrupted.view(len(clean), -1)
        unchanged = corrupted if denoising else clean[:, None].expand_as(corrupted)
        found: dict[Cell, Tensor] = {(): unchanged}
        for indices, values in runs.patched(distinct, score):
            shaped = values.view(len(indices), *corrupted.shape)
            found |= {distinct[i]: value for i, value in zip(indices, shaped, strict=True)}
            pace((len(found) - 1) / len(distinct))
        patched = torch.stack([found[cell] for cell in shorter])
        top = runs.clean[:, 0].argmax(-1)
        return Effects(clean, corrupted, patched, top, runs.block_tokens(), chosen)


@dataclass(frozen=True)
class Scorer:
    """Scores of rows that repeat those of `goal`, against the clean run's logits.

    Attributes:
        clean: [prompts, tokens, vocabulary] logits, for KL.
    """

    metric: Metric
    goal: Goal
    clean: Tensor

    def __call__(self, logits: Tensor) -> Tensor:
        """[n, rows] of logits [n * rows, tokens, vocabulary]."""
        rows = len(self.goal.targets)
        times = len(logits) // rows
        goal = Goal((), self.goal.targets.repeat(times, 1), self.goal.foils.repeat(times))
        clean = None
        if self.metric == "kl":
            clean = self.clean.repeat_interleave(rows // len(self.clean), 0).repeat(times, 1, 1)
        return scores(self.metric, logits, goal, clean).view(times, rows)


class _Runs(Protocol):
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


def _ends(runs: _Runs, goal: Goal, score: Scorer) -> tuple[Tensor, Tensor]:
    """From the runs' logits."""
    return scores(score.metric, runs.clean, goal, runs.clean), score(runs.corrupted)[0]


@contextmanager
def _waves(
    model: Model, contrast: Contrast, names: Sequence[str], direction: Direction, _: Algorithm
) -> Iterator[_Runs]:
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
        yield _Waves(model, blocks, contrast, clean, corrupted, direction == "denoising")


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
def _restarts(
    model: Model,
    contrast: Contrast,
    names: Sequence[str],
    direction: Direction,
    algorithm: Algorithm,
) -> Iterator[_Runs]:
    yield _Restarts(model, contrast, names, direction == "denoising", algorithm == "naive")


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
