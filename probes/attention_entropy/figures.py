"""The figure of attention's sharpness: every head's entropy, and what context does to one layer's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from probes.attention_entropy.growth import LEAST_KEYS, by_prompt
from workbench.figures import Theme, box, layer_name, markup, themed
from workbench.figures.reading import chosen
from workbench.figures.scale import Scale, colour_bar
from workbench.report.intervals import mean_interval

__all__ = ["figure"]

LEFT, RIGHT = (0.0, 0.3), (0.47, 1.0)
WIDTH, ROW, MARGIN = 1080, 26, {"l": 62, "r": 20, "t": 44, "b": 190}
SHARE = Scale("H / ln n", "share", "blue", 0, 1)


def figure(
    data: xr.Dataset,
    *,
    theme: str = "light",
    prompt: str | int | None = None,
    selected: tuple[int, int] | None = None,
    head: int | None = None,
) -> go.Figure:
    """Left: mean entropy share by layer and head. Right: entropy against visible keys in one layer.

    Args:
        prompt: the prompt that is drawn; all together where None, with intervals over prompts.
        selected: the (layer, position) to mark; the last layer where None.
        head: a head to mark beside those whose entropy grows least and most.

    Raises:
        ResultError: no such prompt or head.
    """
    look = themed(theme)
    if prompt is not None:
        wanted = chosen("prompt", prompt, data["prompt"].values)
        data = data.isel(place=np.flatnonzero(data["prompt"].values == wanted))
    layers = data["layer"].values.tolist()
    layer = selected[0] if selected and selected[0] in layers else layers[-1]
    marked = [] if head is None else [int(chosen("head", head, data["head"].values))]
    count = len(set(data["prompt"].values.tolist()))
    over = f"{count} prompts" if count > 1 else "one prompt"
    height = max(500, ROW * len(layers) + MARGIN["t"] + MARGIN["b"])
    layout = look.layout(
        width=WIDTH,
        height=height,
        margin=MARGIN,
        annotations=[
            _heading(f"mean entropy share, {over}", LEFT[0], look),
            _heading(f"layer {layer}: entropy against visible keys, {over}", RIGHT[0], look),
        ],
        shapes=[_frame(data, layers.index(layer), look)],
        legend={
            "x": RIGHT[0],
            "y": -52 / (height - MARGIN["t"] - MARGIN["b"]),
            "yanchor": "top",
            "title": {"text": f"slope dH / d ln n over n ≥ {LEAST_KEYS}{_ends(count)}"},
        },
        xaxis=look.axis("head", domain=LEFT, type="category"),
        yaxis=look.axis("layer", type="category"),
        xaxis2=look.axis("visible keys n", domain=RIGHT, type="log", anchor="y2", **_powers(data)),
        yaxis2=look.axis("entropy H, nat", anchor="x2", showgrid=True, rangemode="tozero"),
    )
    return go.Figure([_heat(data, look), *_growth(data, layer, marked, look)], layout)


def _ends(prompts: int) -> str:
    return ", 95% over prompts" if prompts > 1 else "; one prompt has no interval"


def _frame(data: xr.Dataset, row: int, look: Theme) -> dict[str, Any]:
    frame = box([0], [row], look)
    return {**frame, "x0": -0.5, "x1": data.sizes["head"] - 0.5}


def _heading(text: str, x: float, look: Theme) -> dict[str, Any]:
    return {
        "text": markup(text),
        "font": {"color": look.ink, "size": 13},
        "x": x,
        "y": 1,
        "xref": "paper",
        "yref": "paper",
        "xanchor": "left",
        "yanchor": "bottom",
        "yshift": 8,
        "showarrow": False,
    }


def _powers(data: xr.Dataset) -> dict[str, Any]:
    """Ticks at powers of two."""
    most = int(data["visible_keys"].max())
    ticks = [2**k for k in range(1, most.bit_length() + 1) if 2**k <= most]
    return {"tickvals": ticks, "ticktext": [str(tick) for tick in ticks]}


def _heat(data: xr.Dataset, look: Theme) -> go.Heatmap:
    """A cell's customdata is "layer", which is what a click needs."""
    values = data["entropy_share"].mean("place").transpose("layer", "head")
    entropies = data["entropy"].mean("place").transpose("layer", "head").values
    layers, heads = values["layer"].values.tolist(), values["head"].values.tolist()
    return go.Heatmap(
        z=values.values,
        x=[str(head) for head in heads],
        y=[layer_name(layer) for layer in layers],
        xgap=1,
        ygap=1,
        zmin=SHARE.low,
        zmax=SHARE.high,
        colorscale=SHARE.colours(look),
        colorbar=colour_bar(SHARE, look)
        | {"x": LEFT[1] + 0.01, "xanchor": "left", "title": {"text": "H / ln n", "side": "top"}},
        customdata=[
            [[str(layer), h] for h in row] for layer, row in zip(layers, entropies, strict=True)
        ],
        hovertemplate="layer %{y}, head %{x}<br>share %{z:.3f}<br>"
        "entropy %{customdata[1]:.3f} nat<extra></extra>",
    )


def _growth(data: xr.Dataset, layer: int, marked: Sequence[int], look: Theme) -> list[go.Scatter]:
    """Every head thin; the least and the most growing and the marked thick; controls grey."""
    here = data.sel(layer=layer)
    keys = here["visible_keys"].values
    slopes = by_prompt(data).sel(layer=layer)
    heads = data["head"].values.tolist()
    mean = slopes.mean("prompt").values
    known = [heads[int(f(mean))] for f in (np.nanargmin, np.nanargmax) if np.isfinite(mean).any()]
    thick = list(dict.fromkeys([*known, *marked]))
    thin = {"color": look.muted, "width": 0.8}
    traces = [
        _line(keys, here["entropy"].sel(head=head).values, f"head {head}", thin, shown=False)
        for head in heads
        if head not in thick
    ]
    for number, head in enumerate(thick):
        name = f"head {head}{_slope(slopes.sel(head=head).values)}"
        line = {"color": look.series[number % len(look.series)], "width": 2.2}
        traces.append(_line(keys, here["entropy"].sel(head=head).values, name, line))
    grey = {"color": look.muted, "width": 1.6}
    known_slope = ": slope 1" if np.isfinite(mean).any() else ""
    name = f"uniform, ln n{known_slope}"
    traces.append(_line(keys, here["entropy_uniform"].values, name, grey | {"dash": "dash"}))
    if "entropy_twin" in here:
        slope = by_prompt(data, "entropy_twin").sel(layer=layer).mean("head").values
        values = here["entropy_twin"].mean("head").values
        name = f"untrained twin, mean of heads{_slope(slope)}"
        traces.append(_line(keys, values, name, grey | {"dash": "dot"}))
    return traces


def _slope(values: Any) -> str:
    """Mean over prompts with its interval, for a legend; nothing where no prompt has a slope."""
    known = values[np.isfinite(values)]
    if not len(known):
        return ""
    found = mean_interval(known)
    ends = "" if found.low is None else f" ({found.low:+.2f} to {found.high:+.2f})"
    return f": slope {found.value:+.2f}{ends}"


def _line(
    keys: Any, values: Any, name: str, line: dict[str, Any], *, shown: bool = True
) -> go.Scatter:
    """Mean over the queries of equal n."""
    defined = np.isfinite(values)
    counts = np.unique(keys[defined])
    means = [float(values[defined & (keys == n)].mean()) for n in counts]
    return go.Scatter(
        x=counts.tolist(),
        y=means,
        xaxis="x2",
        yaxis="y2",
        mode="lines" if len(counts) > 1 else "markers",
        name=markup(name),
        line=line,
        showlegend=shown,
        hovertemplate="%{x} keys: %{y:.3f} nat<extra>" + markup(name) + "</extra>",
    )
