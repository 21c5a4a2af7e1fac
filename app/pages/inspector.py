"""The Inspector: one prompt on one model, one tab a method, one selection for all of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import dash
import dash_mantine_components as dmc
from dash import Input, Output, State, dcc, html, no_update
from dash.exceptions import PreventUpdate
from flask import Flask

from app import chooser, exports, ids, progress, topbar
from app.bench import Bench
from app.changes import STORES, answered, changing, idle, page_of
from app.frame import layout, new_app
from app.instruments import kinds
from app.link import Link
from app.measuring import Page, add, aimed, follow, measure, open_link
from app.panels import Linked, Tab, controls, detail, selection, tabs
from app.parts import RETRY, alert, in_browser
from app.state import Asked
from workbench.figures import shorten

__all__ = ["mount"]

NOTHING = "Nothing measured yet. Type a prompt above and press Run."
FIELDS = (ids.MODEL, ids.PROMPT, ids.TARGET, ids.FOIL)
LONGEST_SAID = 40  # characters of what a link says that a notice repeats
BUSY: list[Any] = [(Output(ids.RUN_BUTTON, "loading"), True, False)]


def mount(server: Flask, bench: Bench, start: Asked) -> None:
    """Puts the page at the server's root; `start` is what it measures where no link says more."""
    app, shown = new_app(server, "/", "Workbench"), tabs()
    head = [topbar.layout(bench.names, start), progress.layout()]
    app.layout = layout(head, _main(shown), detail.layout())
    _register_opening(app, bench, start, shown)
    _register_run(app, bench)
    _register_following(app, bench)
    _register_looks(app, shown)
    topbar.register(app, bench)
    progress.register(app, bench)
    chooser.register(app, bench)
    selection.register(app)
    controls.register(app, bench)
    detail.register(app, bench)
    exports.register(app, bench, shown)
    for tab in shown:
        tab.register(app, bench)


def _main(shown: list[Tab]) -> list[Any]:
    stores = (*STORES, ids.SETTINGS, ids.ASK, ids.KEYS, ids.AIM)
    return [
        html.Div(id=ids.ALERT),
        html.Div(id=ids.STALE, className="stale", hidden=True),
        html.Div(dmc.Text(NOTHING, id=ids.EMPTY_TEXT), id=ids.EMPTY, className="empty"),
        chooser.layout(),
        html.Div(_tabs(shown), id=ids.STAGE, hidden=True),
        dcc.Store(id=ids.LOOKS, data=list(_linked(shown))),
        dcc.Store(id=ids.PANELS, storage_type="local"),  # a link's own wins
        *(dcc.Store(id=name) for name in stores),
    ]


def _tabs(shown: list[Tab]) -> dmc.Tabs:
    """All tabs. The first stays in the document, the others are there while they are in front.

    So what a page costs to open does not grow with the instruments.
    """
    heads = dmc.TabsList([dmc.TabsTab(tab.title, value=tab.name) for tab in shown])
    bodies = [
        dmc.TabsPanel(tab.layout(), value=tab.name, pt=8, keepMounted=tab is shown[0])
        for tab in shown
    ]
    line = html.Div([heads, controls.layout()], className="tab-line")
    return dmc.Tabs([line, *bodies], id=ids.TAB, value=shown[0].name, keepMounted=False)


def _linked(shown: list[Tab]) -> dict[str, Linked]:
    """Controls whose values belong in the address, by their names there."""
    return {name: control for tab in shown for name, control in tab.linked.items()}


def _register_opening(app: dash.Dash, bench: Bench, start: Asked, shown: list[Tab]) -> None:
    linked = _linked(shown)

    @app.callback(
        *(Output(name, "data") for name in STORES),
        Output(ids.ALERT, "children"),
        *(Output(name, "value") for name in (*FIELDS, ids.TAB)),
        *(Output(control.id, "value") for control in linked.values()),
        Output(ids.PANELS, "data"),
        Output(ids.SETTINGS, "data"),
        Input("url", "search"),
        running=BUSY,
    )
    def open_page(search: str | None) -> tuple[Any, ...]:
        """Fills the page with what the address says, and measures it."""
        link = _usable(Link.read(search or "", linked, bench.desk.prompts), shown)
        page, answer = answered(Page(), lambda: _opened(bench, link, start))
        return (
            *answer,
            *_fields(bench, _asked(page, link, start)),
            link.tab or no_update,
            *(link.looks.get(name, no_update) for name in linked),
            list(link.off) if search else no_update,
            dict(link.settings if page.job is None else page.job.settings),
        )


def _usable(link: Link, shown: list[Tab]) -> Link:
    """The link without what it names and this page does not have; that is said."""
    tabs, linked = [tab.name for tab in shown], _linked(shown)
    strange = [f"the tab {link.tab}"] if link.tab not in (None, *tabs) else []
    unknown = [name for name in link.off if name.partition(".")[0] not in kinds()]
    looks = {name: value for name, value in link.looks.items() if name not in link.place}
    values = [name for name, value in looks.items() if value not in linked[name].values]
    strange += [f"the panel {name}" for name in unknown]
    strange += [f"the {name} {link.looks[name]}" for name in values]
    return replace(
        link,
        tab=link.tab if link.tab in tabs else None,
        off=tuple(name for name in link.off if name not in unknown),
        looks={name: value for name, value in link.looks.items() if name not in values},
        unused=(*link.unused, *(shorten(words, LONGEST_SAID) for words in strange)),
    )


def _opened(bench: Bench, link: Link, start: Asked) -> Page:
    return Page(alert=alert(link.wrong)) if link.wrong else open_link(bench, link, start)


def _asked(page: Page, link: Link, start: Asked) -> Asked:
    """What the fields are to say."""
    if page.run is not None:
        return page.run.asked
    if page.job is not None:
        return page.job.asked
    return link.asked or start


def _fields(bench: Bench, asked: Asked) -> tuple[Any, ...]:
    model = asked.model if asked.model in bench.names else no_update
    return model, asked.text, asked.target, asked.foil


def _register_run(app: dash.Dash, bench: Bench) -> None:
    submits = [Input(name, "n_submit") for name in (ids.TARGET, ids.FOIL)]
    fields = [State(name, "value") for name in FIELDS]
    more = [State(name, "data") for name in (ids.AIM, ids.SETTINGS, ids.PANELS)]

    @changing(app, Input(ids.RUN_BUTTON, "n_clicks"), *submits, *fields, *more, running=BUSY)
    def run(*values: Any) -> tuple[Any, ...]:
        """Measures what stands in the top bar; an error leaves the page as it is."""
        *fields, aim, settings, off, page = *values[3:-3], idle(*values[-3:])
        asked = aimed(_again(page, Asked(*(value or "" for value in fields))), aim)
        return answered(page, lambda: measure(bench, page, asked, settings or {}, off or []))[1]

    @changing(app, Input(ids.ASK, "data"), *more)
    def ask(
        asked: dict[str, Any] | None, aim: Any, settings: Any, off: Any, *stores: Any
    ) -> tuple[Any, ...]:
        """Measures the page's prompt with one more instrument."""
        page = idle(*stores)
        if asked is None:
            raise PreventUpdate
        wanted = asked["instrument"], settings or {}, off or [], aim
        return answered(page, lambda: add(bench, page, *wanted))[1]


def _again(page: Page, asked: Asked) -> Asked:
    """What is asked, with the subject and corrupted text of the same prompt that is on the page."""
    before = None if page.run is None else page.run.asked
    if before is None or before.text != asked.text:
        return asked
    return replace(asked, subject=before.subject, corrupted=before.corrupted)


def _register_following(app: dash.Dash, bench: Bench) -> None:
    @changing(app, Input(progress.POLL, "n_intervals"), running=progress.POLLING)
    def poll(_: int, *stores: Any) -> tuple[Any, ...]:
        """Asks how the page's job is getting on."""
        page = page_of(*stores)
        pending = page.job
        if pending is None or not pending.going:
            raise PreventUpdate
        return answered(page, lambda: follow(bench, pending, bench.desk.job(pending.job), page))[1]

    @changing(app, Input(RETRY, "n_clicks"), running=BUSY)
    def retry(clicks: int | None, *stores: Any) -> tuple[Any, ...]:
        """Hands the page's job in anew."""
        page = idle(*stores)
        pending = page.job
        if not clicks or pending is None:
            raise PreventUpdate
        return answered(page, lambda: follow(bench, pending, bench.retry(pending.job), page))[1]


def _register_looks(app: dash.Dash, shown: list[Tab]) -> None:
    run = Input(ids.RUN, "data")
    in_browser(app, "stage", Output(ids.STAGE, "hidden"), Output(ids.EMPTY, "hidden"), run)
    in_browser(
        app,
        "stale",
        Output(ids.STALE, "children"),
        Output(ids.STALE, "hidden"),
        run,
        *(Input(name, "value") for name in FIELDS),
        Input(ids.SETTINGS, "data"),
        Input(ids.AIM, "data"),
    )
    in_browser(
        app,
        "address",
        run,
        Input(ids.SELECTION, "data"),
        Input(ids.TAB, "value"),
        Input(ids.PANELS, "data"),
        *(Input(control.id, "value") for control in _linked(shown).values()),
        State(ids.LOOKS, "data"),
    )
