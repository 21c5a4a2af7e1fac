"""The scores of runs into which cells are put, by the cheapest algorithm that the model allows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from probes.causal.cells import LOCAL, Cell, effective
from probes.causal.contrast import Contrast
from probes.causal.metrics import Metric
from probes.causal.open_runs import Runs, restarted, waves
from probes.causal.restarts import below
from probes.causal.scorer import Scorer
from probes.causal.sweep import cost
from workbench.errors import UnsupportedError
from workbench.models.protocol import Model

__all__ = [
    "ALGORITHMS",
    "Algorithm",
    "Direction",
    "Effects",
    "algorithm_of",
    "effects",
    "planned",
]

Direction = Literal["denoising", "noising"]
Algorithm = Literal["wave", "restart", "naive"]
ALGORITHMS: tuple[Algorithm, ...] = get_args(Algorithm)


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
    with torch.no_grad(), _open(model, contrast, names, denoising, chosen) as runs:
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


def _open(
    model: Model,
    contrast: Contrast,
    names: Sequence[str],
    denoising: bool,
    algorithm: Algorithm,
) -> AbstractContextManager[Runs]:
    if algorithm == "wave":
        return waves(model, contrast, names, denoising=denoising)
    return restarted(model, contrast, names, denoising=denoising, whole=algorithm == "naive")
