"""The settings of an instrument as a form; what is filled in is kept for runs and links."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import dash
import dash_mantine_components as dmc
from dash import ALL, Input, Output, State, dcc

from app import ids
from app.bench import Bench
from app.instruments import defaults, kinds
from app.parts import in_browser
from workbench.settings import Setting, settings_of

__all__ = ["field", "form", "layout", "plain_field", "register"]

DEFAULTS = "settings-defaults"  # data: {instrument: {setting: text}}


def form(instrument: str) -> dmc.Group:
    """One field for each setting: a list where there are choices, text elsewhere."""
    texts = defaults(instrument)
    fields = [_field(instrument, it, texts[it.name]) for it in settings_of(kinds()[instrument])]
    return dmc.Group(fields, align="flex-start", gap="sm", className="settings")


def field(instrument: str, setting: str) -> Any:
    """The field of one setting without its help, for a tab that has no form."""
    found = next(it for it in settings_of(kinds()[instrument]) if it.name == setting)
    return _field(instrument, replace(found, help=""), defaults(instrument)[setting])


def layout() -> dcc.Store:
    """What the fields hold where nobody has changed them."""
    return dcc.Store(id=DEFAULTS, data={name: defaults(name) for name in kinds()})


def register(app: dash.Dash, bench: Bench) -> None:
    """Keeps fields and stored settings the same, in the browser, whichever changes; offers prompt sets."""
    for setting in sorted({name for kind in kinds().values() for name in kind.prompt_files}):
        _register_offer(app, bench, setting)
    every = {"type": "setting", "instrument": ALL, "setting": ALL}
    in_browser(
        app,
        "settings",
        Output(every, "value"),
        Output(ids.SETTINGS, "data", allow_duplicate=True),
        Input(every, "value"),
        Input(ids.SETTINGS, "data"),
        State(DEFAULTS, "data"),
        prevent_initial_call=True,
    )


def _register_offer(app: dash.Dash, bench: Bench, setting: str) -> None:
    fields = {"type": "setting", "instrument": ALL, "setting": setting}

    @app.callback(Output(fields, "data"), Input("url", "pathname"), State(fields, "id"))
    def offer(_: str, there: list[Any]) -> list[list[str]]:
        """The names that there are now."""
        return [list(bench.sets.names)] * len(there)


def _field(instrument: str, setting: Setting, text: str) -> Any:
    name = {"type": "setting", "instrument": instrument, "setting": setting.name}
    if setting.name in kinds()[instrument].prompt_files:
        return dmc.Autocomplete(**_shared(name, setting, text))
    return plain_field(name, setting, text)


def plain_field(name: dict[str, str], setting: Setting, text: str) -> Any:
    """The field of a setting, which is called `name`: a list where there are choices."""
    shared = _shared(name, setting, text)
    if setting.choices:
        return dmc.Select(data=list(setting.choices), allowDeselect=False, **shared)
    return dmc.TextInput(**shared)


def _shared(name: dict[str, str], setting: Setting, text: str) -> dict[str, Any]:
    return {
        "id": name,
        "label": setting.name.replace("_", " "),
        "description": setting.help.replace("`", "") or None,
        "value": text,
        "w": 220,
    }
