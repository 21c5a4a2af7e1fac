"""Names of the components that more than one file reads or writes."""

from __future__ import annotations

THEME = "provider"  # forceColorScheme is "light" or "dark"
RUN = "run"  # data: what is measured; see app.state.Run
SELECTION = "selection"  # data: the one selection; see app.state.Selection
ALERT = "alert"  # children: what went wrong
STATUS = "status"  # children: what goes on, read out by screen readers

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
