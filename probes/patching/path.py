"""Path patching: what a head or MLP does along chosen paths alone."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from probes.causal.cells import Cell, Put, cell_of
from probes.causal.contrast import Contrast
from probes.causal.effects import Direction, Effects, algorithm_of, effects, planned
from probes.patching.alignment import Pair
from probes.patching.base import Found, Patching
from probes.patching.grid import Grid, Slot, put_in
from probes.patching.receivers import LOGITS, Receiver, receivers_of
from probes.patching.through import blocks_run, through
from probes.settings import one_of
from workbench.errors import SettingError
from workbench.instrument import Citation
from workbench.models.positions import (
    Positions,
    checked_positions,
    require_positions,
    resolve_positions,
)
from workbench.models.protocol import Model
from workbench.models.sites import Site
from workbench.models.tokens import EncodedPrompt

__all__ = ["PathPatch"]


@dataclass(frozen=True)
class PathPatch(Patching):
    """Path patching: the effect of a head or MLP along direct paths to chosen receivers.

    A sender's value from the other run reaches the receivers by the residual stream alone: all
    attention between keeps the values of the run that is put into (the base run). MLPs between are
    recomputed, as in Wang et al., or frozen too. The final norm, and the norms before receivers, are
    recomputed. With receivers "logits" the score is read out of what arrives there: the sender's
    direct effect (through MLPs too, where they are recomputed). With other receivers, what arrives at
    each is noted and not used; then the base run is repeated with the receivers' inputs as noted and
    everything else recomputed. Scores, effects and normalised effects are those of `Patch`.

    With receivers other than logits, logit differences of half-precision models are of their rounded
    logits.

    Attention being frozen, a sender acts on the logits by the tokens that are read alone; and on a
    layer that no path leads to it has an effect of exactly 0.

    Source: Wang et al. 2022, arXiv 2211.00593, appendix B; Goldowsky-Dill et al. 2023, arXiv
    2304.05969.

    Attributes:
        sites: senders: z, head by head, and mlp_out.
        layers: of the senders, 1..L, or "all".
        positions: tokens at which senders are put in, together; with "all" also those of a target of
            several tokens but its last.
        receivers: "logits", or some of "q5.3", "k5.3", "v5.3" (input of head 3 of layer 5; heads
            counted from 0, keys and values that a group of heads shares as one, layers from 1) and
            "mlp5".
        mlps: "recomputed" or "frozen", between sender and receivers.
        receiver_positions: tokens at which receivers get what was noted.
        direction: "noising" (the sender's value comes from the corrupted run) or "denoising".
        metric: "probability", "logprob", "logit_difference", "kl", or "auto": logit_difference where
            every prompt has a foil, else logprob.

    Result axes and variables: those of `Patch`, with one place a prompt.

    >>> PathPatch(receivers=["q5.3"])(model, prompts).plot()  # doctest: +SKIP
    """

    sites: str | Sequence[str] = ("mlp_out", "z")
    direction: Direction = "noising"
    receivers: str | Sequence[str] = LOGITS
    mlps: Literal["recomputed", "frozen"] = "recomputed"
    receiver_positions: Positions = "all"

    name: ClassVar[str] = "path_patch"
    title: ClassVar[str] = "Path patch"
    allowed: ClassVar[tuple[str, ...]] = ("mlp_out", "z")
    citation: ClassVar[Citation] = Citation(
        "Paths between components of {model} were patched (Wang et al., 2022; Goldowsky-Dill et al., "
        "2023; {settings})",
        "@misc{goldowskydill2023localizing,\n"
        "  title  = {Localizing Model Behavior with Path Patching},\n"
        "  author = {Goldowsky-Dill, Nicholas and MacLeod, Chris and Sato, Lucas and Arora, Aryaman},\n"
        "  year   = {2023},\n"
        "  note   = {arXiv:2304.05969}\n"
        "}",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        written = self.receivers.split(",") if isinstance(self.receivers, str) else self.receivers
        object.__setattr__(self, "receivers", tuple(written))
        object.__setattr__(self, "receiver_positions", checked_positions(self.receiver_positions))
        one_of(self.name, "mlps", self.mlps, ("recomputed", "frozen"))
        _ = self._receivers

    @property
    def _receivers(self) -> tuple[Receiver, ...]:
        return receivers_of(tuple(self.receivers), self.name)

    @property
    def _together(self) -> bool:
        return True

    @property
    def _needs_key_heads(self) -> bool:
        return any(one.site.name in ("k", "v") for one in self._receivers)

    def prepare(self, model: Model) -> None:
        """Refuse models that are no causal decoders, and layers or receivers that they lack.

        Raises:
            UnsupportedError, SettingError: it is, or does.
        """
        super().prepare(model)
        if 0 in self._layers(model):
            raise SettingError(
                f"{self.name}: layer 0, the embedding, has neither heads nor an MLP: expected 1.."
                f"{model.n_layers}"
            )
        for one in self._receivers:
            if not 1 <= one.site.layer <= model.n_layers:
                raise SettingError(
                    f"{self.name}: receiver at layer {one.site.layer}: expected 1..{model.n_layers}"
                )

    def accept(self, prompt: EncodedPrompt) -> None:
        """Refuse a prompt without a counterfactual, that cannot be scored, or without a position."""
        super().accept(prompt)
        require_positions(self.receiver_positions, prompt, self.name)

    def _key(self, pair: Pair) -> Hashable:
        """Equal for prompts that can be patched together."""
        return super()._key(pair), self._received(pair)

    def _received(self, pair: Pair) -> tuple[int, ...]:
        """Where receivers get what was noted."""
        if self.receiver_positions == "all":
            return tuple(pair.counterpart)
        return tuple(resolve_positions(self.receiver_positions, pair.prompt))

    def _found(
        self,
        model: Model,
        pairs: Sequence[Pair],
        contrast: Contrast,
        where: Sequence[int],
        pace: Callable[[float], None],
    ) -> Found:
        grid = self._grid(model, pairs)
        slot = self._slot(pairs[0], where)
        measure = self._through if self._receivers else self._direct
        cells = grid.cells([slot], put_in)
        found = measure(model, pairs, contrast, grid, slot, pace)
        return Found(found, grid.scores(cells, found.patched[..., 0], 1), [len(slot.columns)])

    def _planned(self, model: Model, pairs: Sequence[Pair], where: Sequence[int]) -> int:
        grid, sizes = self._grid(model, pairs), self._sizes(model, pairs)
        if self._receivers:
            tokens = len(pairs) * sizes["width"]
            senders = [point for point in grid.points() if point is not None]
            return tokens * blocks_run(senders, self._receivers, model.n_layers)
        slot, n_layers = self._slot(pairs[0], where), model.n_layers
        cells = self._to_logits(grid, slot, sizes["width"], sizes["tail"], n_layers)
        algorithm = algorithm_of(model, ["z", "attn_out", "mlp_out"])
        return planned(cells, algorithm=algorithm, **sizes)

    def _slot(self, pair: Pair, where: Sequence[int]) -> Slot:
        """Where senders are put in."""
        columns = tuple(pair.counterpart) if self.positions == "all" else tuple(where)
        return Slot(columns, columns)

    def _direct(
        self,
        model: Model,
        pairs: Sequence[Pair],
        contrast: Contrast,
        grid: Grid,
        slot: Slot,
        pace: Callable[[float], None],
    ) -> Effects:
        """To the logits."""
        cells = self._to_logits(grid, slot, contrast.width, contrast.goal.tokens, model.n_layers)
        return effects(
            model, contrast, cells, metric=self._metric, direction=self.direction, pace=pace
        )

    def _to_logits(
        self, grid: Grid, slot: Slot, width: int, tail: int, n_layers: int
    ) -> list[Cell]:
        """Frozen attention moves nothing between tokens, so that only those that are read count."""
        read = range(width - tail, width)
        own = tuple(column for column in slot.columns if column in read)

        def make(site: Site, head: int | None, slot: Slot) -> Cell:
            kept = [
                Put(Site(name, layer), tuple(read), "base")
                for name, layer in self._frozen_behind(site, n_layers)
            ]
            return cell_of([*put_in(site, head, slot), *kept])

        return grid.cells([Slot(own, own)], make)

    def _frozen_behind(self, sender: Site, n_layers: int) -> list[tuple[str, int]]:
        """What keeps its values behind a sender: attention, and MLPs where they are frozen."""
        later = range(sender.layer + 1, n_layers + 1)
        found = [("attn_out", layer) for layer in later]
        if self.mlps == "frozen":
            first = sender.layer + (sender.name != "z")
            found += [("mlp_out", layer) for layer in range(first, n_layers + 1)]
        return found

    def _through(
        self,
        model: Model,
        pairs: Sequence[Pair],
        contrast: Contrast,
        grid: Grid,
        slot: Slot,
        pace: Callable[[float], None],
    ) -> Effects:
        """To heads and MLPs, by two passes."""
        points = [point for point in grid.points() if point is not None]
        self._require_key_heads(grid)
        return through(
            model,
            contrast,
            points,
            self._receivers,
            metric=self._metric,
            direction=self.direction,
            frozen=self.mlps == "frozen",
            sent=slot.columns,
            received=self._received(pairs[0]),
            pace=pace,
        )

    def _require_key_heads(self, grid: Grid) -> None:
        for one in self._receivers:
            if one.head is not None and one.head >= grid.heads_of(one.site.name):
                raise SettingError(
                    f"{self.name}: receiver {one.site.name}{one.site.layer}.{one.head}: expected heads "
                    f"0..{grid.heads_of(one.site.name) - 1}"
                )
