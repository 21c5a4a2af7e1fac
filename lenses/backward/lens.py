"""The backward lens: gradients of linear maps, read in the vocabulary."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from lenses.backward.maps import COMPONENTS, GROUPS, READ, WRITE
from lenses.projection import READOUTS, ReadoutName
from workbench.aim import require_target
from workbench.errors import SettingError, UnsupportedError
from workbench.instrument import Citation, Driving, Measured
from workbench.models.batch import Batch, Places
from workbench.models.positions import Positions, checked_positions
from workbench.models.protocol import Model
from workbench.models.tokens import EncodedPrompt

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import polars as pl
    import xarray as xr

    from workbench.figures.panels import Panel
    from workbench.report.sections import Section

__all__ = ["BackwardLens"]

HALF = (
    "{dtype}: logits are rounded to so few bits that of a target that is nearly certain the gradient is "
    "rounding, in size and in direction; measure in float32"
)
SIZES = ("x_norm", "delta_norm", "gradient_norm", "singular_value")


@dataclass(frozen=True)
class BackwardLens(Driving):
    """Backward lens: what one gradient step would write into each linear map, in tokens.

    For z = x W and a loss L, dL/dW = sum_i x_i^T delta_i over the tokens i, delta_i = dL/dz_i. A map
    that reads the residual stream (ff1, up, gate, q, k, v) has its rows spanned by its inputs: x_i in
    the vocabulary is the *imprint*. One that writes to it (ff2, down, o) moves towards -delta_i: that
    in the vocabulary is the *shift*. No weight gradient is ever formed, and each prompt of a batch
    keeps its own factors.

    The loss is -log p(target), a target of several tokens at its own positions, or the logit of the
    foil less that of the target.

    That the shift points to the target proves nothing: the last norm and the unembedding alone send
    that gradient down the residual stream, in a model that was never trained and for any target. So
    three things stand beside each table: *rest*, which is the shift less the skip path (the gradient
    at the state after the last block, which reaches every layer unchanged); the same for a target
    drawn at random; and the same of the twin, the same architecture with random weights.

    Source: Katz, Belinkov, Geva, Wolf 2024, "Backward lens: projecting language model gradients into
    the vocabulary space", arXiv 2402.12865.

    Attributes:
        maps: "mlp", "attention", "all", or names: ff1, ff2; up, gate, down; q, k, v, o.
        top_k: how many tokens of each imprint and shift.
        readout: how a vector is read: "odd" (scale-free, the same for v and -v), "paper" or
            "normalized" (see `lenses.projection.readout_of`).
        site: where the shift is taken: at the "map" itself, or of the "residual" stream that it
            adds to; they differ where a norm or a factor stands between (Gemma 2 and 3, OLMo 2,
            Granite).
        loss: "nll", or "difference" of foil and target.
        dominant: how many positions are read in the vocabulary of each prompt, map and layer, those
            of largest share; all where none. Norms and shares are of every position.
        controls: whether to measure the random target and the twin; without, a third of the work.
        seed: of the twin and the random targets.
        positions: "all", "last", indices, a slice, or a role.

    Result axes: variant (model, random target, twin), map, layer, place, k, component. Variables
    (variant, map, layer, place): x_norm, delta_norm; share, signed, sums to 1 over a prompt;
    gradient_norm, the same at every place of a prompt; target_score, target_rank (of the token
    aimed_id, 1 = best), foil_score, foil_rank; rest_norm, rest_rank, and skip_cosine, of the
    shift with the skip path. With a last axis k: table_id, table_score (imprint or shift), rest_id,
    rest_score; with component: singular_value of the gradient. NaN, or -1 for ids, where a position
    is not dominant or a map has no shift. Of (variant, place): loss, the same at every place of a
    prompt, and aimed_id, the target.
    With targets of several tokens, places are of the text with the target after it, and aimed_id is
    the token of the target that is predicted at the place (before them all, the first).

    >>> BackwardLens()(model, wb.Prompt("The capital of France is", target=" Paris"))  # doctest: +SKIP
    """

    maps: str | Sequence[str] = "mlp"
    top_k: int = 5
    readout: ReadoutName = "odd"
    site: Literal["map", "residual"] = "map"
    loss: Literal["nll", "difference"] = "nll"
    dominant: int | None = 4
    controls: bool = True
    seed: int = 0
    positions: Positions = "all"

    name: ClassVar[str] = "backward_lens"
    title: ClassVar[str] = "Backward lens"
    citation: ClassVar[Citation] = Citation(
        "Gradients of {model}'s linear maps were projected into the vocabulary with the backward lens "
        "(Katz et al., 2024; {settings})",
        "@inproceedings{katz2024backward,\n"
        "  title     = {Backward Lens: Projecting Language Model Gradients into the Vocabulary Space},\n"
        "  author    = {Katz, Shahar and Belinkov, Yonatan and Geva, Mor and Wolf, Lior},\n"
        "  booktitle = {Proceedings of EMNLP},\n"
        "  year      = {2024}\n"
        "}",
    )
    long_targets: ClassVar[bool] = True
    needs_weights: ClassVar[bool] = True
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = MappingProxyType(
        {
            **dict.fromkeys(SIZES, (0.0, math.inf)),
            **dict.fromkeys(("target_rank", "foil_rank", "rest_rank"), (1.0, math.inf)),
            "skip_cosine": (-1.0, 1.0),
        }
    )

    def __post_init__(self) -> None:
        maps = self.maps.split(",") if isinstance(self.maps, str) else self.maps
        object.__setattr__(self, "maps", tuple(maps))
        object.__setattr__(self, "positions", checked_positions(self.positions))
        known = (*GROUPS, *READ, *WRITE)
        if not self.maps or any(name not in known for name in self.maps):
            raise SettingError(
                f"backward_lens: maps {list(self.maps)}: expected some of {', '.join(known)}"
            )
        if type(self.seed) is not int or not 0 <= self.seed < 2**63:
            raise SettingError(
                f"backward_lens: seed is {self.seed!r}: expected a whole number from 0 to 2^63 - 1"
            )
        for name, value, least in (("top_k", self.top_k, 1), ("dominant", self.dominant, 1)):
            if value is not None and (type(value) is not int or value < least):
                raise SettingError(
                    f"backward_lens: {name} is {value!r}: expected a whole number, at least {least}"
                )
        choices = {"readout": READOUTS, "site": ("map", "residual"), "loss": ("nll", "difference")}
        for name, expected in choices.items():
            if getattr(self, name) not in expected:
                raise SettingError(
                    f"backward_lens: {name} is {getattr(self, name)!r}: expected one of "
                    f"{', '.join(expected)}"
                )

    def prepare(self, model: Model) -> None:
        """Refuse a model without these maps, or whose gradients or twin cannot be had."""
        weights = model.weights
        if self.top_k > model.vocab_size:
            raise SettingError(
                f"backward_lens: top_k is {self.top_k}: the vocabulary has {model.vocab_size}"
            )
        weights.unembedding  # noqa: B018 - refuses a last step that is not linear
        for name in self.named(model):
            weights.map(name, 1)
        if self.controls:
            model.twin(self.seed)

    def named(self, model: Model) -> tuple[str, ...]:
        """The maps that the settings mean on this model."""
        known = model.weights.maps
        found: dict[str, None] = {}
        for name in self.maps:
            group = GROUPS.get(name)
            found |= dict.fromkeys([name] if group is None else [m for m in known if m in group])
        if not found:
            raise UnsupportedError(
                f"{model.name} has no linear maps of the MLP (each token goes to experts of its own, with "
                "fused weights): use maps=attention"
            )
        return tuple(found)

    def accept(self, prompt: EncodedPrompt) -> None:
        """Refuse a prompt without a target, or without the foil that the loss needs."""
        require_target(prompt, against_foil=self.loss == "difference")

    def remarks(self, model: Model) -> Sequence[str]:
        """What 16 bit do to gradients."""
        dtype = str(model.dtype).removeprefix("torch.")
        return [HALF.format(dtype=dtype)] if model.dtype.itemsize == 2 else []

    def coords(self, model: Model) -> Mapping[str, Sequence[Any]]:
        """Variants, maps, layers 1..L, k and component = 1.. ."""
        return {
            "variant": self.variants,
            "map": list(self.named(model)),
            "layer": list(range(1, model.n_layers + 1)),
            "k": list(range(1, self.top_k + 1)),
            "component": list(range(1, COMPONENTS + 1)),
        }

    @property
    def variants(self) -> list[str]:
        """What is measured: the model, and its controls."""
        return ["model", *(["random target", "twin"] if self.controls else [])]

    def drive(self, model: Model, batch: Batch) -> tuple[Places, Measured]:
        """One forward and one backward for each variant, then the projections."""
        from lenses.backward.gradients import measured

        return measured(self, model, batch)

    @classmethod
    def rows(cls, data: xr.Dataset) -> Iterator[dict[str, Any]]:
        """One row a (prompt, map, layer, position), its controls in columns of their own."""
        from lenses.backward.rows import rows

        return rows(data)

    @classmethod
    def figure(
        cls,
        data: xr.Dataset,
        *,
        theme: str = "light",
        prompt: str | int | None = None,
        selected: tuple[int, int] | None = None,
        **options: Any,
    ) -> go.Figure:
        """Imprint and shift by layer, beside rest, random target and twin."""
        from lenses.backward.figures import figure

        return figure(data, theme=theme, prompt=prompt, selected=selected, **options)

    @classmethod
    def panels(
        cls,
        data: xr.Dataset,
        *,
        prompt: str | int | None = None,
        position: int | None = None,
        site: str | None = None,
    ) -> Sequence[Panel]:
        """Tokens of imprint and shift, the target's rank with its controls, and who writes."""
        from lenses.backward.panels import panels

        return panels(data, prompt=prompt, position=position)

    @classmethod
    def facts(
        cls,
        data: xr.Dataset,
        *,
        layer: int,
        prompt: str | int | None = None,
        position: int | None = None,
        site: str | None = None,
    ) -> list[tuple[str, str]]:
        """Norms, share and ranks of one layer and position, by map."""
        from lenses.backward.panels import facts

        return facts(data, layer=layer, prompt=prompt, position=position)

    @classmethod
    def section(cls, rows: pl.LazyFrame, data: xr.Dataset | None = None) -> Section:
        """Does the shift point to the target, and does that survive the controls?"""
        from lenses.backward.report import section

        return section(rows)
