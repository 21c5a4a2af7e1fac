"""What a view of a prompt set's result is, and the parts that views are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import dash
import dash_mantine_components as dmc
import plotly.graph_objects as go
from dash import html

from app.bench import Bench
from app.exports import FIGURES
from app.panels.sizes import HEIGHT, style
from app.parts import graph
from workbench import Result
from workbench.jobs import Job

__all__ = ["EXPORT", "LOOKS", "Measured", "SetView", "drawn", "place"]

EXPORT = "export-of-set"  # type of a button's id, beside its figure and its kind
LOOKS = "set-looks"  # data: what a view's own controls say, for its figures


@dataclass(frozen=True)
class Measured:
    """A finished job of a prompt set, as the page keeps it.

    Attributes:
        job, model, title, n_prompts: the job's.
        prompts: the id under which the set is kept.
        results: the key of each instrument's result.
        refused: one line for each instrument that would not measure this.
    """

    job: int
    model: str
    title: str
    n_prompts: int
    prompts: str
    results: Mapping[str, str]
    refused: Mapping[str, str]

    @classmethod
    def of(cls, job: Job) -> Measured:
        """What is kept of a job."""
        results, refused = dict(job.results), dict(job.refused)
        return cls(job.id, job.model, job.title, job.n_prompts, job.prompts, results, refused)

    def stored(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


@dataclass(frozen=True)
class SetView:
    """How the page shows an instrument's result.

    Attributes:
        layout: (key of the result, result, theme) -> components.
        figure: (result, name of the figure, theme, looks) -> what its menu exports.
        register: the view's own callbacks.
    """

    layout: Callable[[str, Result, str], list[Any]]
    figure: Callable[[Result, str, str, Mapping[str, Any]], go.Figure]
    register: Callable[[dash.Dash, Bench], None]


def place(name: str, label: str) -> html.Div:
    """A place for a figure that is drawn in a callback, with its menu."""
    said: dict[str, Any] = {"aria-label": label}
    shown = html.Div(graph(name, HEIGHT), className="focus", tabIndex=0, role="region", **said)
    return html.Div([_menu(name), shown], className="set-figure")


def drawn(name: str, label: str, figure: go.Figure) -> html.Div:
    """A figure with its menu."""
    part = place(name, label)
    part.children[1].children.figure = figure
    part.children[1].children.style = style(figure)
    return part


def _menu(name: str) -> html.Details:
    buttons = [
        dmc.Button(
            f"As {kind.upper()}",
            id={"type": EXPORT, "figure": name, "kind": kind},
            n_clicks=0,
            size="xs",
            variant="subtle",
            justify="flex-start",
        )
        for kind in FIGURES
    ]
    return html.Details([html.Summary("Export"), html.Div(buttons)], className="menu")
