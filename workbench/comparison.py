"""A base model against a fine-tuned one: every instrument, on the same tokens of both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.errors import ModelError, ResultError
from workbench.instrument import Instrument, find
from workbench.models.batch import Padding
from workbench.models.protocol import Model
from workbench.passes import CancelFlag, Progress, measure
from workbench.prompts import Prompts, PromptSet
from workbench.results import Result, called
from workbench.shown import Shown

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["Comparison", "compare"]


@dataclass(frozen=True, repr=False)
class Comparison(Shown):
    """What one instrument measured of the same tokens in two models.

    Attributes:
        base, tuned: the results; their axes are the same.
    """

    base: Result
    tuned: Result

    @property
    def instrument(self) -> str:
        """Name of the instrument."""
        return self.base.instrument

    @property
    def names(self) -> tuple[str, str]:
        """What figures and rows call the two models."""
        base, tuned = (called(result.provenance["model"]) for result in (self.base, self.tuned))
        return (base, tuned) if base != tuned else (f"{base} (base)", f"{tuned} (tuned)")

    def __repr__(self) -> str:
        return f"<{self.instrument}: {self.names[0]} against {self.names[1]}>"

    def plot(
        self,
        theme: str = "light",
        *,
        prompt: str | int | None = None,
        position: int | None = None,
        site: str | None = None,
        layer: int | None = None,
        panels: Sequence[str] | None = None,
    ) -> go.Figure:
        """Both models and their difference on one layer axis.

        Args:
            theme: "light" or "dark".
            prompt, position, site: the place to read; the first prompt, its last position and the
                first site where None.
            layer: the layer to mark.
            panels: names of the instrument's panels to show; all where None.

        Raises:
            ResultError: there is no such prompt, position or panel.
        """
        from workbench.figures import compared, layer_panels, themed

        kind = find(self.instrument)
        both = [
            kind.panels(result.data, prompt=prompt, position=position, site=site)
            for result in (self.base, self.tuned)
        ]
        known = [panel.name for panel in both[0]]
        if unknown := sorted(set(panels or ()) - set(known)):
            raise ResultError(f"no panel {unknown[0]!r}: expected one of {', '.join(known)}")
        shown = [panel for panel in both[0] if panels is None or panel.name in panels]
        groups = compared(shown, both[1], self.names)
        return layer_panels(groups, themed(theme), layer=layer, position=position)

    def rows(self) -> list[dict[str, Any]]:
        """Tidy rows of both results, as theirs are, behind a key `model`."""
        return [
            {"model": name} | row
            for name, result in zip(self.names, (self.base, self.tuned), strict=True)
            for row in result.rows()
        ]


def compare(
    base: Model,
    tuned: Model,
    prompts: Prompts,
    instruments: Sequence[Instrument],
    *,
    batch_size: int | None = None,
    padding: Padding = "right",
    progress: Callable[[Progress], None] | None = None,
    cancel: CancelFlag | None = None,
) -> list[Comparison]:
    """Measure the same prompts in two models; `tuned` may be `base` with an adapter.

    Args:
        batch_size, padding, progress, cancel: as for `workbench.measure`, which runs twice.

    Returns:
        One comparison an instrument, in their order.

    Raises:
        ModelError: the two have not the same layers, or not the same tokens for a prompt.
        PromptError, TargetError, SettingError, UnsupportedError: as `workbench.measure`.

    >>> import workbench as wb  # doctest: +SKIP
    >>> tuned = wb.load("atlas", adapter="lora/")  # doctest: +SKIP
    >>> wb.compare(tuned.with_adapter(None), tuned, "Rome is", [lens])[0].plot()  # doctest: +SKIP
    """
    chosen = PromptSet.of(prompts)
    _require_same_axes(base, tuned, chosen)
    measured = [
        measure(
            model,
            chosen,
            instruments,
            batch_size=batch_size,
            padding=padding,
            progress=progress,
            cancel=cancel,
        )
        for model in (base, tuned)
    ]
    return [Comparison(*pair) for pair in zip(*measured, strict=True)]


def _require_same_axes(base: Model, tuned: Model, prompts: PromptSet) -> None:
    if base.n_layers != tuned.n_layers:
        raise ModelError(
            f"{base.name} has {base.n_layers} blocks and {tuned.name} {tuned.n_layers}: layers are "
            "compared one by one, expected as many"
        )
    for name, prompt in zip(prompts.names, prompts, strict=True):
        if base.encode(prompt).ids != tuned.encode(prompt).ids:
            raise ModelError(
                f"prompt {name}: {base.name} and {tuned.name} make other tokens of it, so that places "
                "cannot be compared: expected one tokenizer and chat template"
            )
