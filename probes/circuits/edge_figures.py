"""The largest edges between the layers, and how faithful circuits of them are."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from probes.circuits.edge_rows import largest
from probes.circuits.reading import heading
from workbench.errors import ResultError
from workbench.figures import Theme, layer_name, markup, shorten, themed
from workbench.figures.reading import chosen

__all__ = ["curve", "figure"]

EDGES = 24
WIDTH, HEIGHT = 1080, 640
SPLIT = 0.6, 0.7  # where the edges end and the curve begins
MLP = 0.4  # layers that an MLP stands above its block's heads
THICK = 0.8, 6.0  # pixels of a line, least and most
DASHES = {"q": "dash", "k": "dot"}  # of lines into queries and keys; those into values are solid
BOWS = {
    "q": -0.12,
    "k": 0.12,
}  # heads by which a line leaves the straight one, so that none hides another
CURVE = "of the clean − corrupted difference kept"


def figure(
    data: xr.Dataset,
    *,
    theme: str = "light",
    prompt: str | int | None = None,
    selected: tuple[int, int] | None = None,
    edges: int = EDGES,
) -> go.Figure:
    """Heads and MLPs by layer with the largest edges between them; the faithfulness curve beside.

    Raises:
        ResultError: the result has no such prompt, or `edges` is below 1.
    """
    if type(edges) is not int or edges < 1:
        raise ResultError(f"edges is {edges!r}: expected a whole number, at least 1")
    look, name = themed(theme), chosen("prompt", prompt, data["prompt"].values)
    one = data.isel(place=int(np.flatnonzero(data["prompt"].values == name)[0]))
    shown = list(largest(one, edges))
    traces = [*_edges(shown, one, look), _nodes(shown, one, look), *curve(one, look)]
    drawn = go.Figure(traces, _layout(one, len(shown), look, str(name)))
    if selected is not None:
        mark = {"type": "line", "x0": 0, "x1": 1, "xref": "x domain", "yref": "y"}
        pen = {"color": look.accent, "width": 1, "dash": "dot"}
        drawn.add_shape(mark | {"y0": selected[0], "y1": selected[0], "line": pen})
    return drawn


def _place(part: str, layer: int, head: int | None, one: xr.Dataset) -> tuple[float, float]:
    """Where a node stands: heads by their number, the MLP right of them and a little higher."""
    heads = int(one["sender_head"].values.max()) + 1
    if part == "embed":
        return (heads - 1) / 2, 0.0
    if part == "logits":
        return (heads - 1) / 2, float(layer + 1)
    if part == "mlp":
        return heads + 0.3, layer + MLP
    if part in ("k", "v"):  # a head of keys may serve several heads: it stands amid them
        share = heads // (
            int(one["receiver_head"].values[one["receiver_part"].values == "k"].max()) + 1
        )
        return (head or 0) * share + (share - 1) / 2, float(layer)
    return float(head or 0), float(layer)


def _ends(edge: dict[str, Any], one: xr.Dataset) -> list[tuple[float, float]]:
    return [
        _place(edge[f"{dim}_part"], edge[f"{dim}_layer"], edge[f"{dim}_head"], one)
        for dim in ("sender", "receiver")
    ]


def _edges(shown: list[dict[str, Any]], one: xr.Dataset, look: Theme) -> list[go.Scatter]:
    """A line an edge, as thick as its score is large; blue raises the metric, red lowers it."""
    most = max(abs(edge["score"]) for edge in shown) or 1.0
    unit = one["score"].attrs["unit"]
    found = []
    for edge in reversed(shown):
        (x0, y0), (x1, y1) = _ends(edge, one)
        width = THICK[0] + (THICK[1] - THICK[0]) * abs(edge["score"]) / most
        said = f"{edge['sender']} → {edge['receiver']}: {edge['score']:+.3g} {unit}"
        steps = np.linspace(0, 1, 13)
        bow = BOWS.get(edge["receiver_part"], 0.0) * np.sin(np.pi * steps)
        colour = look.series[0] if edge["score"] > 0 else look.accent
        dash = DASHES.get(edge["receiver_part"], "solid")
        found.append(
            go.Scatter(
                x=(x0 + (x1 - x0) * steps + bow).tolist(),
                y=(y0 + (y1 - y0) * steps).tolist(),
                mode="lines",
                line={"width": width, "color": colour, "dash": dash},
                opacity=0.65,
                hoverinfo="text",
                hovertext=markup(said),
                showlegend=False,
            )
        )
    return found


def _nodes(shown: list[dict[str, Any]], one: xr.Dataset, look: Theme) -> go.Scatter:
    """The ends of the edges that are drawn, named."""
    places: dict[tuple[float, float], str] = {}
    for edge in shown:
        for dim, place in zip(("sender", "receiver"), _ends(edge, one), strict=True):
            part, layer, head = (edge[f"{dim}_{end}"] for end in ("part", "layer", "head"))
            called = part if head is None else f"{layer}.{head}"
            places.setdefault(place, called if part != "mlp" else f"mlp {layer}")
    return go.Scatter(
        x=[x for x, _ in places],
        y=[y for _, y in places],
        mode="markers+text",
        text=list(places.values()),
        textposition="middle center",
        textfont={"size": 10, "color": look.ink},
        marker={"size": 30, "color": look.paper, "line": {"color": look.muted, "width": 1}},
        hoverinfo="skip",
        showlegend=False,
    )


def curve(one: xr.Dataset, look: Theme) -> list[go.Scatter]:
    """Faithfulness over the number of edges, and the random circuits' least to largest."""
    sizes = [max(0.5, size) for size in one["edges"].values.tolist()]  # 0 has no logarithm
    axes = {"x": sizes, "xaxis": "x2", "yaxis": "y2"}
    hover = "%{customdata} edges: %{y:.3f}<extra>%{fullData.name}</extra>"
    counts = one["edges"].values.tolist()
    own = go.Scatter(
        **axes,
        y=one["faithfulness"].values.tolist(),
        customdata=counts,
        name="largest |score|",
        mode="lines+markers",
        line={"color": look.series[0], "width": 2},
        hovertemplate=hover,
    )
    if not one.sizes.get("draw", 0):
        return [own]
    random = one["random_faithfulness"].transpose("edges", "draw").values
    low, high = random.min(1).tolist(), random.max(1).tolist()
    band = go.Scatter(
        x=[*sizes, *reversed(sizes)],
        y=[*high, *reversed(low)],
        xaxis="x2",
        yaxis="y2",
        fill="toself",
        fillcolor=f"rgba{(*bytes.fromhex(look.muted[1:]), 0.2)}",
        line={"width": 0},
        hoverinfo="skip",
        showlegend=False,
    )
    middle = go.Scatter(
        **axes,
        y=random.mean(1).tolist(),
        customdata=counts,
        name=f"random edges ({random.shape[1]} draws, mean and range)",
        mode="lines+markers",
        line={"color": look.muted, "width": 1.5, "dash": "dot"},
        marker={"size": 5},
        hovertemplate=hover,
    )
    return [band, middle, own]


def _layout(one: xr.Dataset, count: int, look: Theme, name: str) -> dict[str, Any]:
    top = int(one["receiver_layer"].values.max())
    heads = int(one["sender_head"].values.max()) + 1
    layers = list(range(top + 2))
    sizes = one["edges"].values.tolist()
    ticks = [size for size in sizes[:-1] if str(size)[0] in "01" and size < sizes[-1] / 3]
    ticks.append(sizes[-1])
    return look.layout(
        width=WIDTH,
        height=HEIGHT,
        margin={"l": 60, "r": 20, "t": 124, "b": 52},
        legend={
            "x": SPLIT[1],
            "y": 1.0,
            "xanchor": "left",
            "yanchor": "bottom",
            "font": {"size": 11},
        },
        xaxis=look.axis(
            "head", domain=[0, SPLIT[0]], range=[-0.7, heads + 1], tickvals=list(range(heads))
        ),
        yaxis=look.axis(
            "layer",
            range=[-0.6, top + 1.6],
            tickvals=layers,
            ticktext=[layer_name(layer) for layer in layers[:-1]] + ["out"],
            showgrid=True,
        ),
        xaxis2=look.axis(
            "edges kept",
            domain=[SPLIT[1], 1],
            anchor="y2",
            type="log",
            tickvals=[max(0.5, size) for size in ticks],
            ticktext=[str(size) for size in ticks],
        ),
        yaxis2=look.axis(f"share {CURVE}", anchor="x2", showgrid=True),
        annotations=[_heading(one, count, look, name)],
        shapes=[
            {"type": "line", "xref": "x2 domain", "yref": "y2", "x0": 0, "x1": 1, "y0": y, "y1": y}
            | {"line": {"color": look.rule, "width": 1.5}, "layer": "below"}
            for y in (0, 1)
        ],
    )


def _heading(one: xr.Dataset, count: int, look: Theme, name: str) -> dict[str, Any]:
    edges = int(one["score"].notnull().sum())
    noising = json.loads(one.attrs["provenance"])["settings"]["direction"] == "noising"
    does = "corrupting" if noising else "restoring"
    lines = [
        f"<b>{markup(shorten(_text(one, name), 110))}</b>",
        markup(heading(one)[1]),
        f"the {count} largest of {edges:,} edges, upward, approximate: {does} one raises (blue) or lowers "
        "(red) the metric",
        "into a head: values solid, queries dashed, keys dotted",
    ]
    place = {
        "x": 0,
        "y": 1,
        "xref": "paper",
        "yref": "paper",
        "xanchor": "left",
        "yanchor": "bottom",
    }
    font = {"size": 12, "color": look.ink}
    return {
        "text": "<br>".join(lines),
        "showarrow": False,
        "align": "left",
        "yshift": 44,
        "font": font,
    } | place


def _text(one: xr.Dataset, name: str) -> str:
    """The prompt's text."""
    prompts = json.loads(one.attrs["provenance"])["prompts"]
    return next((str(p["text"]) for p in prompts if str(p["name"]) == name), name).replace(
        "\n", "⏎"
    )
