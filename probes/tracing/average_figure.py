"""Averages by token role: a heat map a component, and beside it each role with its spread.

The averages are those of figure 1 and the lines those of figure 7 of Meng et al. 2022, arXiv
2202.05262, with the layer upward as in every figure here; the spread of the prompts is added.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from probes.tracing.averages import averaged, by_role
from probes.tracing.headings import VALUES, averaged_lines
from probes.tracing.prompt_figure import lines_above, scale_of
from probes.tracing.reading import SITES
from workbench.errors import ResultError
from workbench.figures import Theme, layer_ticks, themed
from workbench.figures.reading import chosen
from workbench.figures.scale import Scale, colour_bar

__all__ = ["TWIN", "figure_of_roles"]

TWIN = "untrained twin (control)"
HEAT = 28  # pixels of a role's column in a heat map
PLOT = 84  # pixels of a role's own plot
ROW = 5, 26  # pixels of a layer
HEIGHT = 230  # pixels of all layers of one component, where they fit
WITH_GAPS = 10  # pixels of a layer above which cells stand apart
GAP = 16
LINE = 18  # pixels of a line of the heading
TITLES = 108  # pixels above the plots for the names of roles


def figure_of_roles(
    data: xr.Dataset,
    *,
    theme: str = "light",
    value: str = "effect",
    twin: xr.Dataset | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> go.Figure:
    """Mean effect by token role and layer, a row a component.

    Left: a heat map of the means, and one of the untrained twin's where it is given, on one colour
    scale. Right: each role's mean with its bootstrap interval over groups, and between which values
    80% of the prompts lie.

    Args:
        data: a result of several prompts with subjects.
        value: effect, or normalised.
        twin: the dataset of the same prompts on `model.twin(seed)`.
        resamples, seed: of the bootstrap.

    Raises:
        ResultError: there is no such value, or no prompt with a subject.
    """
    look = themed(theme)
    name = chosen("value", value, np.array(["effect", "normalised"]))
    if not (data["role"] >= 0).any():
        raise ResultError(
            "no prompt of this result has a subject, so there are no roles to average by: name a prompt"
        )
    found = averaged(by_role(data, name), resamples=resamples, seed=seed)
    found = found.isel(role=np.flatnonzero((found["n"] > 0).any(["site", "layer"]).values))
    control = (
        None if twin is None else averaged(by_role(twin, name), resamples=resamples, seed=seed)
    )
    return _Roles(found, control, look, VALUES[name]).figure(averaged_lines(data, found, twin))


class _Roles:
    """The figure's parts: heat maps in the first columns, then a column for each role."""

    def __init__(self, found: xr.Dataset, twin: xr.Dataset | None, look: Theme, title: str) -> None:
        self.found, self.look = found, look
        self.twin = None if twin is None else twin.sel(role=found["role"].values)
        self.sheets = [found] if self.twin is None else [found, self.twin]
        self.sites: list[str] = found["site"].values.tolist()
        self.roles: list[str] = found["role"].values.tolist()
        self.layers: list[int] = found["layer"].values.tolist()
        means = np.concatenate([sheet["mean"].values.ravel() for sheet in self.sheets])
        self.high = min(max(HEIGHT // len(self.layers), ROW[0]), ROW[1])  # of a layer
        self.gap = int(self.high > WITH_GAPS)
        self.scale: Scale = scale_of(means, title, str(found.attrs["unit"]))

    def figure(self, lines: list[str]) -> go.Figure:
        widths = [HEAT * len(self.roles)] * len(self.sheets) + [PLOT] * len(self.roles)
        total = sum(widths) + GAP * (len(widths) - 1)
        tall = self.high * len(self.layers) * len(self.sites) + GAP * (len(self.sites) - 1)
        figure = make_subplots(
            rows=len(self.sites),
            cols=len(widths),
            column_widths=widths,
            horizontal_spacing=GAP / total,
            vertical_spacing=GAP / tall,
            shared_yaxes="all",
        )
        for row, site in enumerate(self.sites, 1):
            for column, sheet in enumerate(self.sheets, 1):
                figure.add_trace(self._heat(sheet.sel(site=site)), row, column)
            for column, role in enumerate(self.roles, 1 + len(self.sheets)):
                figure.add_traces(list(self._lines(site, role)), row, column)
        self._axes(figure)
        head = lines_above(lines, self.look, TITLES - 6)
        figure.update_layout(
            self.look.layout(
                margin={"l": 84, "r": 96, "t": TITLES + LINE * len(lines) + 14, "b": 62},
                width=total + 180,
                height=tall + TITLES + LINE * len(lines) + 76,
                annotations=[*head, *self._titles(figure)],
                coloraxis={
                    "cmin": self.scale.low,
                    "cmax": self.scale.high,
                    "colorscale": self.scale.colours(self.look),
                    "colorbar": colour_bar(self.scale, self.look),
                },
                showlegend=False,
            )
        )
        return figure

    def _heat(self, sheet: xr.Dataset) -> go.Heatmap:
        grids = {
            name: sheet[name].transpose("layer", "role") for name in ("mean", "low", "high", "n")
        }
        cells = zip(*(grid.values.tolist() for grid in grids.values()), strict=True)
        hover = [
            [
                f"{_spoken(role)}, layer {layer}<br>{_told(*cell)}"
                for role, cell in zip(self.roles, zip(*row, strict=True), strict=True)
            ]
            for layer, row in zip(self.layers, cells, strict=True)
        ]
        return go.Heatmap(
            z=grids["mean"].values.astype(np.float32),
            x=list(range(len(self.roles))),
            y=self.layers,
            coloraxis="coloraxis",
            xgap=1,
            ygap=self.gap,
            hoverongaps=False,
            hovertext=hover,
            hovertemplate="%{hovertext}<extra></extra>",
            customdata=[[str(layer)] * len(self.roles) for layer in self.layers],
        )

    def _lines(self, site: str, role: str) -> Iterator[go.Scatter]:
        one = self.found.sel(site=site, role=role).dropna("layer", subset=["mean"])
        layers, colour = one["layer"].values.tolist(), self.look.series[0]
        yield self._band(one["below"], one["above"], 0.13)
        yield self._band(one["low"], one["high"], 0.32)
        if self.twin is not None:
            control = self.twin.sel(site=site, role=role)
            yield go.Scatter(
                x=control["mean"].values,
                y=self.layers,
                mode="lines",
                line={"color": self.look.muted, "width": 1.5, "dash": "dot"},
                hovertemplate="layer %{y}: %{x:.3g}<extra>" + TWIN + "</extra>",
            )
        ends = np.stack([one[name].values for name in ("low", "high", "below", "above", "n")], 1)
        yield go.Scatter(
            x=one["mean"].values,
            y=layers,
            mode="lines+markers",
            line={"color": colour, "width": 2},
            marker={"size": 4},
            text=[f"{_told(*m)}<br>{_spread(*m[3:])}" for m in _records(one["mean"].values, ends)],
            customdata=[str(layer) for layer in layers],
            hovertemplate="layer %{y}<br>%{text}<extra>"
            + f"{SITES[site]}, {_spoken(role)}</extra>",
        )

    def _band(self, low: xr.DataArray, high: xr.DataArray, opacity: float) -> go.Scatter:
        whole = np.flatnonzero((low + high).notnull().values)
        layers = low["layer"].values[whole]
        red, green, blue = bytes.fromhex(self.look.series[0][1:])
        return go.Scatter(
            x=np.concatenate([low.values[whole], high.values[whole][::-1]]),
            y=np.concatenate([layers, layers[::-1]]),
            fill="toself",
            fillcolor=f"rgba({red},{green},{blue},{opacity})",
            line={"width": 0},
            mode="lines",
            hoverinfo="skip",
        )

    def _axes(self, figure: go.Figure) -> None:
        look, rows, sheets = self.look, len(self.sites), len(self.sheets)
        figure.update_yaxes(
            look.axis(
                range=[self.layers[0] - 0.5, self.layers[-1] + 0.5], **layer_ticks(self.layers)
            )
        )
        for row, site in enumerate(self.sites, 1):
            figure.update_yaxes(title_text=f"{SITES[site]}: layer", row=row, col=1)
        names = {
            "tickvals": list(range(len(self.roles))),
            "ticktext": list(map(_spoken, self.roles)),
        }
        for column in range(1, sheets + 1):
            figure.update_xaxes(
                look.axis(showticklabels=False, range=[-0.5, len(self.roles) - 0.5]), col=column
            )
            figure.update_xaxes(
                side="top", showticklabels=True, tickangle=-60, row=1, col=column, **names
            )
        ends = _ends(self.found, self.twin)
        for column in range(sheets + 1, sheets + 1 + len(self.roles)):
            figure.update_xaxes(
                look.axis(range=ends, showgrid=True, zeroline=True, nticks=3, showticklabels=False),
                col=column,
            )
            figure.update_xaxes(zerolinecolor=look.rule, zerolinewidth=2, col=column)
            figure.update_xaxes(showticklabels=True, tickangle=0, row=rows, col=column)

    def _titles(self, figure: go.Figure) -> list[dict[str, Any]]:
        """The name of each role above its plots, and what the heat maps are below them."""
        sheets, found = len(self.sheets), []
        for n, name in enumerate(("mean", TWIN)[:sheets]):
            found.append(self._title(figure, n, 0, name, {"y": 0, "yanchor": "top", "yshift": -6}))
        for n, role in enumerate(self.roles):
            counts = self.found["n"].sel(role=role).max().item()
            text = f"{_spoken(role).replace(' ', '<br>')}<br>n = {counts}"
            place = {"y": 1, "yanchor": "bottom", "yshift": 4}
            found.append(self._title(figure, sheets + n, 0, text, place))
        middle = figure.get_subplot(1, sheets + 1).xaxis.domain[0]
        text = f"{self.scale.title}, {self.scale.unit}"
        found.append(
            {
                "text": text,
                "x": (middle + 1) / 2,
                "xref": "paper",
                "y": 0,
                "yref": "paper",
                "yanchor": "top",
                "yshift": -26,
                "showarrow": False,
                "font": {"color": self.look.muted},
            }
        )
        return found

    def _title(
        self, figure: go.Figure, column: int, row: int, text: str, place: dict[str, Any]
    ) -> dict[str, Any]:
        ends = figure.get_subplot(row + 1, column + 1).xaxis.domain
        style: dict[str, Any] = {"font": {"color": self.look.ink, "size": 11}, "showarrow": False}
        style["xanchor"] = "center"
        return {"text": text, "x": sum(ends) / 2, "xref": "paper", "yref": "paper"} | place | style


def _ends(found: xr.Dataset, twin: xr.Dataset | None) -> list[float]:
    """Of the horizontal axes, which all plots share."""
    known = [found[name].values for name in ("mean", "low", "high", "below", "above")]
    known += [] if twin is None else [twin["mean"].values]
    least, most = (float(pick(np.stack(known))) for pick in (np.nanmin, np.nanmax))
    room = 0.06 * ((most - least) or 1.0)
    return [min(least, 0) - room, max(most, 0) + room]


def _records(means: Any, ends: Any) -> Iterator[tuple[Any, ...]]:
    for mean, (low, high, below, above, n) in zip(means.tolist(), ends.tolist(), strict=True):
        yield mean, low, high, int(n), below, above


def _told(mean: float, low: float, high: float, n: int, *_: float) -> str:
    ends = "" if np.isnan(low) else f" (95% {low:+.3g} to {high:+.3g})"
    return f"mean {mean:+.3g}{ends}, n = {n}"


def _spread(n: int, below: float, above: float) -> str:
    return f"80% of prompts {below:+.3g} to {above:+.3g}"


def _spoken(role: str) -> str:
    return {
        "before_subject": "before subject",
        "first_subject": "first subject",
        "middle_subject": "middle subject",
        "last_subject": "last subject",
        "first_after": "first after",
        "further": "further",
        "last": "last token",
    }[role]
