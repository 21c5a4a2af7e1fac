"""Names of the components that more than one file reads or writes."""

from __future__ import annotations

THEME = "provider"  # forceColorScheme is "light" or "dark"
RUN = "run"  # data: what is measured; see app.state.Run
SELECTION = "selection"  # data: the one selection; see app.state.Selection
PANELS = "panels-off"  # data: "instrument.panel", or a whole "instrument", each switched off
SETTINGS = "settings"  # data: {instrument: {setting: text}}, where they are not the default
ASK = "ask"  # data: {"instrument": name}: measure this one too, on the present prompt
AIM = "aim"  # data: {text, subject, corrupted}, as chosen for the prompt of this text
JOB = "job"  # data: the page's latest job; see app.state.Pending
LOOKS = "looks"  # data: names in the address of the tabs' own controls
TAB = "tab"  # value: name of the tab in front

ALERT = "alert"  # children: what went wrong
STATUS = "status"  # children: what goes on, read out by screen readers
STALE = "stale"  # that the fields say something else than what is shown
EMPTY = "empty"  # what stands there before anything is measured
EMPTY_TEXT = "empty-text"
STAGE = "stage"  # what stands there then

MODEL = "model"
PROMPT = "prompt"
TARGET = "target"
FOIL = "foil"
RUN_BUTTON = "run-button"

COLOUR = "colour"
SITE = "site"
VIEW = "view"

GRID = "lens-grid"
STRIP = "lens-strip"
SHOWN = "lens-shown"  # data: what grid and strip show now
TABLE = "lens-table"
CURVES = "detail-curves"
KEYS = "keys"  # data: when a key was last pressed on the grid

LAYERS = "layers-figure"
TOKENS = "layers-texts"  # data: position and text of each token
CHIPS = "layers-chips"
SWITCHED = "layers-switched"  # data: when a chip was last clicked
