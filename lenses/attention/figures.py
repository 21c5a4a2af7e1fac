"""Figures of attention: layer by head coloured by a score, and one head's pattern."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from lenses.attention.rows import SCORES, means
from lenses.attention.token_axes import coloured, heading, labels, ticks
from workbench.errors import ResultError
from workbench.figures import box, layer_name, markup, themed, visible
from workbench.figures.reading import chosen, words
from workbench.figures.scale import Scale
from workbench.figures.theme import MONOSPACE

__all__ = ["TITLES", "best_head", "figure", "of_prompt", "overview", "pattern", "scale_of"]

TITLES = {
    "induction": "weight on keys after an earlier copy",
    "previous": "weight on the previous token",
    "duplicate": "weight on earlier copies of the token",
    "sink": "weight on the first token",
    "top_sink": "share of attention that one key draws",
    "entropy": "entropy",
    "distance": "mean distance",
}
SIDE = 420  # pixels of a pattern
MARGIN = {"l": 92, "r": 96, "t": 118, "b": 46}
GAP = 230  # pixels between the two


def figure(
    data: xr.Dataset,
    *,
    theme: str = "light",
    prompt: str | int | None = None,
    selected: tuple[int, int] | None = None,
    score: str = "previous",
    head: int | None = None,
) -> go.Figure:
    """The overview, and beside it one head's pattern where patterns were kept.

    Args:
        selected: the (layer, position) to mark: the pattern's layer, and its query.
        score: what colours the overview.
        head: the head whose pattern is drawn; the one furthest above chance where None.
    """
    one = of_prompt(data, prompt)
    left = overview(data, theme=theme, prompt=prompt, selected=selected, score=score, head=head)
    if "pattern" not in one:
        return left
    right = pattern(data, theme=theme, prompt=prompt, selected=selected, score=score, head=head)
    return _side_by_side(left, right)


def of_prompt(data: xr.Dataset, prompt: str | int | None) -> xr.Dataset:
    """The part of a result that speaks of one prompt.

    Raises:
        ResultError: the result has no such prompt.
    """
    wanted = chosen("prompt", prompt, data["prompt"].values)
    return data.isel(place=np.flatnonzero(data["prompt"].values == wanted))


def best_head(one: xr.Dataset, score: str, layer: int | None = None) -> tuple[int, int]:
    """(layer, head) of the score furthest above chance, of all layers or of one."""
    found = means(one)
    excess = found[score] - found[f"{score}_chance"]
    if layer is not None and layer in excess["layer"]:
        excess = excess.sel(layer=[layer])
    flat = np.nan_to_num(excess.values, nan=-np.inf)
    row, column = np.unravel_index(int(flat.argmax()), flat.shape)
    return int(excess["layer"][row]), int(excess["head"][column])


def scale_of(values: xr.DataArray, chance: xr.DataArray, score: str) -> Scale:
    """From 0 to the most that is there, with chance marked on the bar."""
    high = float(np.nanmax([values.max(), chance.max(), 1e-9]))
    ticks = {0.0: "0", high: f"{high:.2g}"}
    level = float(chance.mean())
    if level == level:  # not NaN
        ticks[level] = f"uniform {level:.2g}"
    return Scale(score.replace("_", " "), str(values.attrs["unit"]), "blue", 0.0, high, ticks)


def overview(
    data: xr.Dataset,
    *,
    theme: str = "light",
    prompt: str | int | None = None,
    selected: tuple[int, int] | None = None,
    score: str = "previous",
    head: int | None = None,
) -> go.Figure:
    """Layer by head, coloured by a score's mean over the prompt.

    A cell's customdata is "layer", which is what a click needs; its x is the head.

    Raises:
        ResultError: no such score.
    """
    look, one = themed(theme), of_prompt(data, prompt)
    found = means(one)
    values, chance = found[_known(score)], found[f"{score}_chance"]
    layers, heads = values["layer"].values.tolist(), values["head"].values.tolist()
    count = found[f"{score}_places"].values.tolist()
    heat = go.Heatmap(
        z=values.values,
        x=list(range(len(heads))),
        y=list(range(len(layers))),
        xgap=1,
        ygap=1,
        **coloured(scale_of(values, chance, score), look),
        hovertext=[
            [
                f"layer {layer}, head {h}<br>{score.replace('_', ' ')} {value:.3g}<br>"
                f"uniform attention {level:.3g}<br>mean over {n} places"
                for h, value in zip(heads, line, strict=True)
            ]
            for layer, line, level, n in zip(
                layers, values.values.tolist(), chance.values.tolist(), count, strict=True
            )
        ],
        hovertemplate="%{hovertext}<extra></extra>",
        customdata=[[str(layer)] * len(heads) for layer in layers],
    )
    at = _marked(one, selected, score, head)
    marks = [box([heads.index(at[1])], [layers.index(at[0])], look)] if at else []
    width = min(560, max(240, 22 * len(heads)))
    layout = look.layout(
        annotations=[heading(TITLES[score], look)],
        xaxis=look.axis("head", side="bottom", **ticks([str(h) for h in heads])),
        yaxis=look.axis("layer", **ticks([layer_name(layer) for layer in layers])),
        shapes=marks,
        margin=MARGIN,
        width=width + MARGIN["l"] + MARGIN["r"],
        height=SIDE + MARGIN["t"] + MARGIN["b"],
    )
    return go.Figure(heat, layout)


def pattern(
    data: xr.Dataset,
    *,
    theme: str = "light",
    prompt: str | int | None = None,
    selected: tuple[int, int] | None = None,
    score: str = "previous",
    head: int | None = None,
) -> go.Figure:
    """One head's weights: a row a query, the first on top, a column a key.

    A cell's customdata is "layer position" of its query.

    Raises:
        ResultError: the result kept no patterns, or not this head's.
    """
    look, one = themed(theme), of_prompt(data, prompt)
    if "pattern" not in one:
        raise ResultError("no patterns in this result: measure with patterns=true")
    layer, head = _marked(one, selected, score, head) or best_head(one, _known(score))
    layer = chosen("pattern of layer", layer, one["pattern_layer"].values)
    head = chosen("pattern of head", head, one["pattern_head"].values)
    weights = one["pattern"].sel(pattern_layer=layer, pattern_head=head)
    ids = one["key_id"].isel(place=0)
    weights = weights.transpose("place", "key").isel(key=np.flatnonzero(ids.values >= 0))
    keys = [str(word) for word in words(one, ids.isel(key=ids.values >= 0))]
    queries = one["position"].values.tolist()
    heat = go.Heatmap(
        z=weights.values,
        x=list(range(len(keys))),
        y=list(range(len(queries))),
        **coloured(Scale("weight", "attention weight", "blue", 0.0, 1.0), look),
        hovertext=_hover(one, weights.values, keys),
        hovertemplate="%{hovertext}<extra></extra>",
        customdata=[[f"{layer} {query}"] * len(keys) for query in queries],
    )
    at = selected is not None and selected[1] in queries
    row = [queries.index(selected[1])] if at and selected is not None else []
    font = {"family": MONOSPACE, "size": 11}
    above = ticks(labels(range(len(keys)), keys)) | {"tickangle": -60, "side": "top"}
    across = look.axis(f"layer {layer}, head {head}: key", **above, tickfont=font)
    down = look.axis("query", **ticks(labels(queries, one["token"].values.tolist())), tickfont=font)
    down |= {"range": [len(queries) - 0.5, -0.5]}
    layout = look.layout(
        xaxis=across,
        yaxis=down,
        shapes=[box([0, len(keys) - 1], row, look, width=1.5)] if row else [],
        margin=MARGIN | {"l": 120},
        width=SIDE + 120 + MARGIN["r"],
        height=SIDE + MARGIN["t"] + MARGIN["b"],
    )
    return go.Figure(heat, layout)


def _known(score: str) -> str:
    return str(chosen("score", score, np.array(SCORES)))


def _marked(
    one: xr.Dataset, selected: tuple[int, int] | None, score: str, head: int | None
) -> tuple[int, int] | None:
    """The layer and head to mark: those asked for, or of a layer the one furthest above chance."""
    layer = None if selected is None else max(1, selected[0])
    best = best_head(one, _known(score), layer)
    if layer is not None and layer not in one["layer"]:
        return None
    if head is None:
        return best
    return best[0] if layer is None else layer, chosen("head", head, one["head"].values)


def _hover(one: xr.Dataset, weights: Any, keys: Sequence[str]) -> list[list[str]]:
    shown = [f"{i} {markup(visible(key))}" for i, key in enumerate(keys)]
    places = zip(one["position"].values.tolist(), one["token"].values, strict=True)
    queries = [f"{i} {markup(visible(str(token)))}" for i, token in places]
    return [
        [f"from {q}<br>to {k}<br>weight {w:.3g}" for k, w in zip(shown, line, strict=True)]
        for q, line in zip(queries, weights.tolist(), strict=True)
    ]


def _side_by_side(left: go.Figure, right: go.Figure) -> go.Figure:
    """Two heat maps in one figure, each with its axes, title and colour bar."""
    one = left.layout.width - MARGIN["l"] - MARGIN["r"]
    total = one + GAP + SIDE + MARGIN["r"]
    inner = total - MARGIN["r"]
    share, start = one / inner, (one + GAP) / inner
    right_layout = right.layout.to_plotly_json()
    trace = right.data[0].update(xaxis="x2", yaxis="y2", colorbar={"x": 1.01})
    first = left.data[0].update(colorbar={"x": share + 0.01})
    found = go.Figure([first, trace], left.layout)
    shapes = [shape | {"xref": "x2", "yref": "y2"} for shape in right_layout.get("shapes", ())]
    found.update_layout(
        xaxis={"domain": [0, share]},
        xaxis2=right_layout["xaxis"] | {"domain": [start, 1], "anchor": "y2"},
        yaxis2=right_layout["yaxis"] | {"anchor": "x2"},
        shapes=[*left.layout.shapes, *shapes],
        width=total + MARGIN["l"],
    )
    return found
