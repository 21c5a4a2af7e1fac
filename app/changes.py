"""How callbacks read what the page shows, and how they change it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dash
from dash import Output, State, no_update
from dash.exceptions import PreventUpdate

from app import ids
from app.measuring import Page
from app.parts import alert
from app.state import Pending, Run, Selection
from workbench import WorkbenchError

__all__ = ["STORES", "answered", "changing", "idle", "page_of"]

STORES = (ids.JOB, ids.RUN, ids.SELECTION)


def changing(app: dash.Dash, *wires: Any, **options: Any) -> Callable[..., Any]:
    """A callback that changes what the page shows; it is given the page's stores last."""
    outputs = [Output(name, "data", allow_duplicate=True) for name in STORES]
    said = Output(ids.ALERT, "children", allow_duplicate=True)
    stores = [State(name, "data") for name in STORES]
    decorator: Callable[..., Any] = app.callback(
        *outputs, said, *wires, *stores, prevent_initial_call=True, **options
    )
    return decorator


def page_of(job: Any, run: Any, selected: Any) -> Page:
    """The page from its stores."""
    return Page(
        None if job is None else Pending.of(job),
        None if run is None else Run.of(run),
        None if selected is None else Selection(**selected),
    )


def idle(*stores: Any) -> Page:
    """The page, if it waits for no job: one at a time."""
    page = page_of(*stores)
    if page.job is not None and page.job.going:
        raise PreventUpdate
    return page


def answered(before: Page, step: Callable[[], Page]) -> tuple[Page, tuple[Any, ...]]:
    """The page after a step, and what a callback answers; an error leaves the page as it is."""
    try:
        after = step()
    except WorkbenchError as error:
        return before, (None, no_update, no_update, alert(str(error)))
    parts = [
        no_update if now is was or now is None else now.stored()
        for now, was in ((after.run, before.run), (after.selection, before.selection))
    ]
    return after, (None if after.job is None else after.job.stored(), *parts, after.alert)
