"""What sets a model's particles apart from its controls' over prompts, layer by layer, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from probes.particles.bootstrap import FEWEST, Summary, resampled
from probes.particles.quantities import LEADING, QUANTITIES
from workbench.figures import layer_name

__all__ = ["PAIRS", "Compared", "compared", "of_view", "said", "table_of"]

Numbers = NDArray[np.float64]
PAIRS: Mapping[tuple[str, str], str] = {
    ("raw", "random"): "untrained twins",
    ("centred", "random_centred"): "untrained twins",
    ("raw", "shuffled"): "shuffled tokens",
    ("centred", "shuffled_centred"): "shuffled tokens",
}
"""What each view is held against, and what that is called."""


@dataclass(frozen=True)
class Compared:
    """One quantity of one view, less its control's, prompt by prompt.

    Attributes:
        layers: the layers.
        difference: from the mean of the control's draws.
        above, below: layers at which prompts lie above all draws, or below all of them: the 95% interval
            of the difference from the nearest draw holds no 0.
    """

    layers: list[int]
    difference: Summary
    above: list[int]
    below: list[int]

    @property
    def alike(self) -> list[int]:
        """Layers at which an interval exists and neither is shown."""
        told = {*self.above, *self.below}
        known = zip(self.layers, self.difference.low, strict=True)
        return [layer for layer, low in known if layer not in told and not np.isnan(low)]


def of_view(rows: pl.DataFrame, view: str, column: str) -> tuple[list[int], Numbers]:
    """Layers, and [prompts, layers] of one column; NaN where the view has no such row.

    Prompts and layers are those of all rows, whatever the view: views are paired by their place.
    """
    own = pl.when(pl.col("view") == view).then(pl.col(column).cast(pl.Float64))
    cells = rows.group_by("prompt", "layer").agg(own.drop_nulls().first().alias("own"))
    wide = cells.pivot(on="layer", index="prompt", values="own").sort("prompt")
    layers = sorted(int(name) for name in wide.columns if name != "prompt")
    table = wide.select([str(layer) for layer in layers]).fill_null(float("nan"))
    return layers, table.to_numpy().astype(np.float64)


def compared(rows: pl.DataFrame, view: str, control: str, quantity: str) -> Compared:
    """`quantity` of `view` less that of `control`; one of the two that keep their draws' ends."""
    layers, own = of_view(rows, view, quantity)
    _, middle = of_view(rows, control, quantity)
    low, high = (_end(rows, control, f"{quantity}_{end}", middle) for end in ("low", "high"))
    over, under = resampled(own - high), resampled(own - low)
    return Compared(
        layers,
        resampled(own - middle),
        [layer for layer, low in zip(layers, over.low, strict=True) if low > 0],
        [layer for layer, high in zip(layers, under.high, strict=True) if high < 0],
    )


def _end(rows: pl.DataFrame, control: str, column: str, middle: Numbers) -> Numbers:
    """An end of the draws; of a single one the draw itself."""
    _, found = of_view(rows, control, column)
    return np.where(np.isnan(found), middle, found)


def table_of(found: Summary, layers: list[int], line: str) -> pl.DataFrame:
    """A summary as the report's plots take it: line, layer, value, low, high, n."""
    table = pl.DataFrame(
        {
            "line": [line] * len(layers),
            "layer": layers,
            "value": found.value,
            "low": found.low,
            "high": found.high,
            "n": found.n,
        }
    )
    return table.with_columns(pl.col("value", "low", "high").fill_nan(None)).drop_nulls("value")


def said(rows: pl.DataFrame) -> Iterator[str]:
    """A sentence for each quantity and control, from nothing but the intervals."""
    views = rows["view"].unique().to_list()
    for quantity in LEADING[:1]:
        for (view, control), name in PAIRS.items():
            if view in views and control in views:
                found = compared(rows, view, control, quantity)
                yield f"{_subject(quantity, view)}: {_verdict(found, name)}."


def _subject(quantity: str, view: str) -> str:
    return f"{QUANTITIES[quantity].title.capitalize()}, {view}"


def _verdict(found: Compared, control: str) -> str:
    if not (found.above or found.below or found.alike):
        return f"too few prompts to compare it with {control} (at least {FEWEST})"
    parts = {
        f"above all draws of {control}": found.above,
        f"below all draws of {control}": found.below,
        "not told apart from them"
        if found.above or found.below
        else f"not told apart from {control}": (found.alike),
    }
    told = [f"{what} at {_layers(layers)}" for what, layers in parts.items() if layers]
    return f"{'; '.join(told)}{_largest(found)}"


def _largest(found: Compared) -> str:
    """The largest difference among those that are told apart."""
    those = [*found.above, *found.below]
    if not those:
        return ""
    value, low, high = found.difference.value, found.difference.low, found.difference.high
    i = max(map(found.layers.index, those), key=lambda i: abs(float(value[i])))
    at = layer_name(found.layers[i])
    return f". Largest difference: {value[i]:+.3f} ({low[i]:+.3f} to {high[i]:+.3f}) at layer {at}"


def _layers(layers: list[int]) -> str:
    """As "layers emb, 2 to 5"."""
    runs: list[list[int]] = []
    for layer in sorted(layers):
        if runs and runs[-1][-1] == layer - 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    shown = [
        f"{layer_name(run[0])} to {layer_name(run[-1])}"
        if len(run) > 2
        else ", ".join(map(layer_name, run))
        for run in runs
    ]
    return f"layer{'s' if len(layers) > 1 else ''} {', '.join(shown)}"
