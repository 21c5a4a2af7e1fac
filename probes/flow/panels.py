"""Layers as a flow on the layer axis: path, defects, stretch and loss, the twin's as controls."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import xarray as xr
from xarray import ufuncs

from probes.flow.orders import LABELS
from probes.flow.rows import firsts, limit
from workbench.figures.panels import Line, Lines, Panel

__all__ = ["SHORT", "panels"]

DWARFS = 4  # times the largest change at other layers, above which one layer's leaves the axis
ROOM = 0.1  # of the axis, at both ends
MOST = 3  # substeps, and exponents, that are drawn
HALVES = ("strang_attention", "strang_mlp", "two_steps")
SHORT = {
    "attention_first": "A M",
    "mlp_first": "M A",
    "parallel": "A + M at once",
    "strang_attention": "½A M ½A",
    "strang_mlp": "½M A ½M (Macaron)",
    "two_steps": LABELS["two_steps"],
}

Summary = Callable[[xr.DataArray], Line]


def _views(data: xr.Dataset) -> list[tuple[str, str, bool]]:
    """View, what its lines' names begin with, and whether it is a control."""
    return [
        (v, "twin: " if v == "random" else "", v == "random") for v in data["view"].values.tolist()
    ]


def panels(data: xr.Dataset) -> list[Panel]:
    """Panels of the places of a result (dim `place`): their values, or medians with quartiles."""
    found: list[Panel] = [
        _lines(
            data, "step", "step |dx| / |x|, log10", {"step": ufuncs.log10(data["step"])}, of_tokens
        ),
        _lines(
            data,
            "path",
            "turn (cosine), straightness",
            {"turn": data["turn"], "straightness": data["straightness"]},
            of_tokens,
            ends=(-1.05, 1.05),
        ),
    ]
    if "ode_defect" in data or "integrated_defect" in data:
        title = f"from flow{_limit(data)}, of |dx|"
        found.append(_lines(data, "flow", title, dict(_defects(data)), of_tokens))
    if "bracket" in data:
        drawn = {"[F, G]": data["bracket"], "A M less M A": data["swap"]}
        drawn = {label: ufuncs.log10(values) for label, values in drawn.items()}
        title = "order of A, M, log10 of |dx|"
        found.append(_lines(data, "splitting", title, drawn, of_tokens))
    if "stretch" in data:
        found.append(_stretch(firsts(data)))
    if "layer_loss_change" in data:
        found += _losses(firsts(data))
    return found


def _limit(data: xr.Dataset) -> str:
    """The N of the steps that stand for a block's flow, where they do."""
    return f" (N={limit(data)})" if "ode_defect" in data else ""


def _defects(data: xr.Dataset) -> Iterator[tuple[str, xr.DataArray]]:
    for n in data["substeps"].values.tolist()[:MOST] if "ode_defect" in data else ():
        yield (
            f"{n} step{'s' if n > 1 else ''}",
            data["ode_defect"].sel(substeps=n).drop_vars("substeps"),
        )
    if "integrated_defect" in data:
        yield "1 step, from dopri5", data["integrated_defect"]


def _stretch(prompts: xr.Dataset) -> Lines:
    drawn = {
        f"direction {k}": prompts["stretch"].sel(exponent=k).drop_vars("exponent")
        for k in prompts["exponent"].values.tolist()[:MOST]
    }
    return _lines(prompts, "stretch", "log stretch, nat", drawn, of_prompts)


def _losses(prompts: xr.Dataset) -> list[Panel]:
    """One block in halves and in other orders, beside a random push as far as the first of them."""
    known = prompts["order"].values.tolist()
    groups = {
        "halves": ("Δ loss, halves", [o for o in known if o in HALVES]),
        "orders": ("Δ loss, order", [o for o in known if o not in HALVES]),
    }
    return [_of_orders(prompts, name, title, orders) for name, (title, orders) in groups.items()]


def _of_orders(prompts: xr.Dataset, name: str, title: str, orders: Sequence[str]) -> Lines:
    changes = prompts["layer_loss_change"].sel(view="model")
    lines = {SHORT[one]: of_prompts(changes.sel(order=one)) for one in orders}
    pushed = prompts["random_change"].sel(view="model").sel(order=orders[0])
    lines[f"random, as {SHORT[orders[0]]}"] = _as_control(of_prompts(pushed))
    if "random" in prompts["view"].values:
        twin = prompts["layer_loss_change"].sel(view="random").sel(order=orders[0])
        lines[f"twin: {SHORT[orders[0]]}"] = _as_control(of_prompts(twin))
    return Lines(name, f"{title}, nat", lines, _ends(lines.values()))


def _ends(lines: Collection[Line]) -> tuple[float, float] | None:
    """Of all layers but the largest, where that would dwarf the others; None where it would not."""
    by_layer: dict[int, list[float]] = {}
    for one in (end for it in lines for end in (it.values, it.low, it.high) if end is not None):
        for layer, value in zip(one["layer"].values.tolist(), one.values.tolist(), strict=True):
            by_layer.setdefault(layer, []).append(value)
    sizes = {layer: max(map(abs, values)) for layer, values in by_layer.items()}
    largest = max(sizes, key=lambda layer: sizes[layer])
    others = [value for layer, values in by_layer.items() if layer != largest for value in values]
    if not any(others) or sizes[largest] <= DWARFS * max(map(abs, others)):
        return None
    low, high = min(0.0, *others), max(0.0, *others)
    room = ROOM * (high - low)
    return low - room, high + room


def _as_control(line: Line) -> Line:
    return Line(line.values, line.low, line.high, control=True)


def _lines(
    data: xr.Dataset,
    name: str,
    title: str,
    drawn: Mapping[str, xr.DataArray],
    summary: Summary,
    ends: tuple[float, float] | None = None,
) -> Lines:
    """Each quantity of the model, then the first two of the twin."""
    lines = {}
    for view, before, control in _views(data):
        for label, values in list(drawn.items())[: 2 if control else None]:
            line = summary(values.sel(view=view))
            lines[f"{before}{label}"] = _as_control(line) if control else line
    return Lines(name, title, lines, ends)


def of_tokens(values: xr.DataArray) -> Line:
    """Median over places with the quartiles, dims (place, layer); one place's own values."""
    values = values.dropna("layer", how="all")
    if values.sizes["place"] == 1:
        return Line(values.isel(place=0))
    low, middle, high = (
        values.quantile(q, "place").drop_vars("quantile") for q in (0.25, 0.5, 0.75)
    )
    return Line(middle, low, high)


def of_prompts(values: xr.DataArray) -> Line:
    """Mean over prompts with the quartiles, dims (place, layer); one prompt's own values."""
    if values.sizes["place"] == 1:
        return Line(values.isel(place=0))
    low, high = (values.quantile(q, "place").drop_vars("quantile") for q in (0.25, 0.75))
    return Line(values.mean("place"), low, high)
