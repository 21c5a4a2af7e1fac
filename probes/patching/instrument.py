"""Activation patching: any site of one run put into another, and what it does to the answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from probes.causal.cells import LOCAL, Cell
from probes.causal.contrast import Contrast
from probes.causal.effects import Direction, Effects, algorithm_of, effects, planned
from probes.causal.metrics import Metric
from probes.causal.pace import within
from probes.patching.alignment import Align, Pair
from probes.patching.base import Found, Patching
from probes.patching.grid import Slot, put_in
from probes.settings import one_of
from workbench.errors import SettingError
from workbench.instrument import Citation
from workbench.models.protocol import Model
from workbench.models.tokens import EncodedPrompt

__all__ = ["Patch"]

PLACED = ("q", "k", "pattern")  # sites whose values are of a position, by rotation or by its keys


@dataclass(frozen=True)
class Patch(Patching):
    """Activation patching between a prompt and its counterfactual, at any site.

    The clean run is the prompt's, the corrupted run that of its corrupted text. For each cell, one
    site of one layer (or one head of it) at one token (or at all of them together) gets its value
    from the other run, everything behind it is recomputed, and the result is scored:

        effect = patched - corrupted (denoising: clean values into the corrupted run);
        effect = patched - clean (noising: corrupted values into the clean run);
        total = clean - corrupted; normalised = (patched - corrupted) / total.

    A normalised effect of 1 is the clean run, 0 the corrupted one. Denoising asks what is sufficient,
    noising what is necessary; later components repair, and effects of cells do not add up. Every
    head stands in the grid beside the others: they are the control of the one that is pointed at.

    Source: Vig et al. 2020, arXiv 2004.12265; Wang et al. 2022, arXiv 2211.00593 (grids of heads);
    Zhang and Nanda 2023, arXiv 2309.16042 (metrics, both directions).

    Attributes:
        sites: some of resid_post, attn_out, mlp_out, mlp_act, resid_mid, patched as a whole; and of z
            (what each head hands to the output projection), q, k, v (after rotary; keys and values
            that a group of heads shares are one head) and pattern, patched head by head.
        layers: 0..L, or "all" for 1..L. Layer 0, the embedding, has resid_post alone.
        positions: tokens whose values are put in.
        scope: "each": every token by itself; "together": all tokens of `positions` at once (with "all"
            also those of a target of several tokens but its last).
        align: "position": texts of as many tokens, token by token; "role": texts of any length, by
            their subjects; tokens without a counterpart have no cell.
        direction: "denoising" or "noising".
        metric: "probability", "logprob", "logit_difference", "kl", or "auto": logit_difference where
            every prompt has a foil, else logprob.

    Aligned by role, subjects go first token to first and last to last, what is before them from the
    start and what is behind from the end (see `probes.patching.alignment.matched`). The corrupted
    text's subject is what stands in the place of the prompt's own, or the prompt's field
    "corrupted_subject".

    Result axes: place (one a token; together, one a prompt, at the last of its tokens), site, layer,
    head_site, head. Variables: score (of the patched run), effect, normalised (NaN where the total
    effect is about 0: below .001 in probability or KL, .01 in logprob or logit difference) by (place,
    site, layer); head_score, head_effect, head_normalised by (place,
    head_site, layer, head; counted from 0); and of each prompt at its places: clean, corrupted, total,
    tokens (put in together), role, target_id, top_id, correct, group, block_tokens as in CausalTrace.

    >>> Patch(sites=["z"], scope="together")(model, prompts).plot()  # doctest: +SKIP
    """

    sites: str | Sequence[str] = ("resid_post", "attn_out", "mlp_out", "z")
    scope: Literal["each", "together"] = "each"
    align: Literal["position", "role"] = "position"

    name: ClassVar[str] = "patch"
    title: ClassVar[str] = "Patch"
    citation: ClassVar[Citation] = Citation(
        "Activations of {model} were patched between prompts and their counterfactuals (Wang et al., "
        "2022; {settings})",
        "@misc{wang2022interpretability,\n"
        "  title  = {Interpretability in the Wild: a Circuit for Indirect Object Identification in "
        "{GPT-2} small},\n"
        "  author = {Wang, Kevin and Variengien, Alexandre and Conmy, Arthur and Shlegeris, Buck and "
        "Steinhardt, Jacob},\n"
        "  year   = {2022},\n"
        "  note   = {arXiv:2211.00593}\n"
        "}",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of(self.name, "scope", self.scope, ("each", "together"))
        one_of(self.name, "align", self.align, ("position", "role"))
        placed = [site for site in self.sites if site in PLACED]
        if self.align == "role" and placed:
            raise SettingError(
                f"{self.name}: align is 'role' and sites holds {placed[0]!r}, whose values belong to a "
                "position: expected align=position, or z, v or sites that are patched as a whole"
            )

    @property
    def _align(self) -> Align:
        return self.align

    @property
    def _together(self) -> bool:
        return self.scope == "together"

    def accept(self, prompt: EncodedPrompt) -> None:
        """Refuse a prompt without a counterfactual, that cannot be scored, or without its subject."""
        super().accept(prompt)
        if self.align == "role":
            _ = prompt.subject

    def _found(
        self,
        model: Model,
        pairs: Sequence[Pair],
        contrast: Contrast,
        where: Sequence[int],
        pace: Callable[[float], None],
    ) -> Found:
        slots = self._slots(pairs[0], where)
        grid = self._grid(model, pairs)
        cells = grid.cells(slots, put_in)
        found = patched(model, contrast, cells, self._metric, self.direction, pace)
        scores = grid.scores(cells, found.patched[..., 0], len(slots))
        return Found(found, scores, [len(slot.columns) for slot in slots])

    def _planned(self, model: Model, pairs: Sequence[Pair], where: Sequence[int]) -> int:
        cells = self._grid(model, pairs).cells(self._slots(pairs[0], where), put_in)
        sizes = self._sizes(model, pairs)
        parts = ([cells[i] for i in indices] for indices in by_algorithm(cells))
        return sum(
            planned(part, algorithm=algorithm_of(model, names_of(part)), **sizes) for part in parts
        )

    def _slots(self, pair: Pair, where: Sequence[int]) -> list[Slot]:
        """What is put in together: tokens that have a counterpart."""
        if self.scope == "each":
            return [self._slot(pair, [position]) for position in where]
        every = self.positions == "all"
        return [self._slot(pair, list(pair.counterpart) if every else where)]

    def _slot(self, pair: Pair, positions: Sequence[int]) -> Slot:
        clean = tuple(position for position in positions if position in pair.counterpart)
        other = tuple(pair.counterpart[position] for position in clean)
        return Slot(other, clean) if self.direction == "denoising" else Slot(clean, other)


def patched(
    model: Model,
    contrast: Contrast,
    cells: Sequence[Cell],
    metric: Metric,
    direction: Direction,
    pace: Callable[[float], None],
) -> Effects:
    """As `effects`; cells inside attention, which need whole passes, are measured by themselves."""
    parts = by_algorithm(cells)
    done, every = 0.0, []
    for indices in parts:
        share = len(indices) / len(cells)
        every.append(
            effects(
                model,
                contrast,
                [cells[i] for i in indices],
                metric=metric,
                direction=direction,
                pace=within(pace, done, share),
            )
        )
        done += share
    order = torch.tensor([i for indices in parts for i in indices]).argsort()
    whole = torch.cat([one.patched for one in every])
    first = every[0]
    return Effects(
        first.clean,
        first.corrupted,
        whole[order.to(whole.device)],
        first.top,
        sum(one.block_tokens for one in every),
        first.algorithm,
    )


def by_algorithm(cells: Sequence[Cell]) -> list[list[int]]:
    """Indices of the cells behind attention, and of those inside it, where there are any."""
    inside = [not names_of([cell]) <= {*LOCAL, "resid_post"} for cell in cells]
    parts = [[i for i, is_in in enumerate(inside) if is_in is kind] for kind in (False, True)]
    return [indices for indices in parts if indices]


def names_of(cells: Sequence[Cell]) -> set[str]:
    """The sites that are put in."""
    return {put.site.name for cell in cells for put in cell}
