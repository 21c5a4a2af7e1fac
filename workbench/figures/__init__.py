"""Named-axis data as plotly figures: themes, token text, layer grids, curves, and files.

Everything here takes xarray arrays with the dims `layer` and `position` and gives plain plotly
figures; nothing here knows an instrument, a notebook or the app.
"""

from workbench.figures.axes import layer_name, layer_ticks
from workbench.figures.bars import token_bars
from workbench.figures.compared import compared
from workbench.figures.curves import Curves, layer_curves, layer_mark
from workbench.figures.grid import Cells, box, layer_grid
from workbench.figures.heading import headed
from workbench.figures.layers import layer_marks, layer_panels
from workbench.figures.panels import Bars, Heat, Line, Lines, Panel, Words
from workbench.figures.saving import BrowserMissingError, graph_config, save_figure
from workbench.figures.scale import Scale
from workbench.figures.strip import layer_strip
from workbench.figures.theme import DARK, LIGHT, Theme, themed
from workbench.figures.tokens import markup, shorten, visible
from workbench.figures.window import page, rows

__all__ = [
    "DARK",
    "LIGHT",
    "Bars",
    "BrowserMissingError",
    "Cells",
    "Curves",
    "Heat",
    "Line",
    "Lines",
    "Panel",
    "Scale",
    "Theme",
    "Words",
    "box",
    "compared",
    "graph_config",
    "headed",
    "layer_curves",
    "layer_grid",
    "layer_mark",
    "layer_marks",
    "layer_name",
    "layer_panels",
    "layer_strip",
    "layer_ticks",
    "markup",
    "page",
    "rows",
    "save_figure",
    "shorten",
    "themed",
    "token_bars",
    "visible",
]
