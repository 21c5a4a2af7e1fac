"""The prompt chooser: which prompt of a measured set the page shows."""

from __future__ import annotations

from typing import Any

import dash
import dash_mantine_components as dmc
from dash import Input, Output, State, html
from dash.exceptions import PreventUpdate

from app import ids
from app.bench import Bench
from app.changes import answered, changing, idle
from app.measuring import move
from app.parts import in_browser
from app.state import Run
from workbench import PromptSet
from workbench.figures import shorten

__all__ = ["layout", "register"]

ROW = "chooser-row"
CHOOSER = "chooser"
MOST = 50  # prompts in the list at once
LETTERS = 100  # of a prompt in the list


def layout() -> html.Div:
    """The list, hidden where a single prompt is measured."""
    chooser = dmc.Select(
        id=CHOOSER,
        label="Prompt of the set",
        data=[],
        searchable=True,
        allowDeselect=False,
        size="xs",
        nothingFoundMessage="No prompt of the set contains this",
        maw=760,
    )
    return html.Div(chooser, id=ROW, className="chooser", hidden=True)


def register(app: dash.Dash, bench: Bench) -> None:
    """Lists what is searched for, and shows what is chosen; the fields say which prompt that is."""

    @app.callback(
        Output(CHOOSER, "data"),
        Output(CHOOSER, "label"),
        Output(ROW, "hidden"),
        Input(ids.RUN, "data"),
        Input(CHOOSER, "searchValue"),
        State(ROW, "hidden"),
        prevent_initial_call=True,
    )
    def search(
        run: dict[str, Any] | None, text: str | None, hidden: bool
    ) -> tuple[list[Any], str, bool]:
        """The prompts that hold the text that was typed, the one that is shown among them."""
        if run is None or not run["asked"]["prompts"]:
            if hidden:
                raise PreventUpdate
            return [], "", True
        asked = Run.of(run).asked
        prompts = bench.prompts(asked)
        return _found(prompts, text or "", asked.text), f"One of {len(prompts):,} prompts", False

    in_browser(
        app,
        "choose",
        Output(CHOOSER, "value"),
        *(
            Output(name, "value", allow_duplicate=True)
            for name in (ids.PROMPT, ids.TARGET, ids.FOIL)
        ),
        Input(ids.RUN, "data"),
        Input(ids.SELECTION, "data"),
        State(CHOOSER, "value"),
        prevent_initial_call=True,
    )

    @changing(app, Input(CHOOSER, "value"))
    def choose(name: str | None, *stores: Any) -> tuple[Any, ...]:
        """Shows another prompt of the same results."""
        page = idle(*stores)
        if page.run is None or page.selection is None or not page.run.asked.prompts:
            raise PreventUpdate
        if name in (None, str(page.selection.prompt)):
            raise PreventUpdate
        return answered(page, lambda: move(bench, page, str(name)))[1]


def _found(prompts: PromptSet, text: str, shown: str) -> list[dict[str, str]]:
    labels = {
        str(name): shorten(f"{name}: {prompt.shown}", LETTERS)
        for name, prompt in zip(prompts.names, prompts, strict=True)
    }
    everything = text in labels.values()  # the text of the choice itself, not a search
    fitting = [
        name for name, label in labels.items() if everything or text.lower() in label.lower()
    ]
    kept = [name for name, p in zip(labels, prompts, strict=True) if p.shown == shown]
    listed = dict.fromkeys([*fitting[:MOST], *kept])
    return [{"value": name, "label": labels[name]} for name in listed]
