"""The figure of a direct-attribution result at one position."""

from __future__ import annotations

import plotly.graph_objects as go
import xarray as xr

from lenses.attribution.panels import panels
from lenses.attribution.words import attributed
from workbench.figures import layer_panels, markup, themed, visible
from workbench.figures.generic import at_place

__all__ = ["figure"]

TITLE, ABOVE = 42, 52  # pixels for its two lines, and for the panels' own titles below them
LEAST = 660  # pixels that the title needs


def figure(
    data: xr.Dataset,
    *,
    theme: str = "light",
    prompt: str | int | None = None,
    selected: tuple[int, int] | None = None,
) -> go.Figure:
    """Layers by component and by head at one position, the last one read where none is selected.

    The title says what is attributed, where, and what the sum of all terms has over the logit.

    Args:
        data: a result's dataset.
        theme: "light" or "dark".
        prompt: id of the prompt; the first one where None.
        selected: the (layer, position) to show and mark.

    Raises:
        ResultError: the result has no such prompt or position.
    """
    look = themed(theme)
    layer, position = (None, None) if selected is None else selected
    shown = panels(data, prompt=prompt, position=position)
    drawn = layer_panels({"": shown}, look, layer=layer, position=position)
    drawn.add_annotation(
        text=_title(at_place(data, prompt, position)),
        x=0,
        y=1,
        xref="paper",
        yref="paper",
        xanchor="left",
        yanchor="bottom",
        yshift=ABOVE,
        showarrow=False,
        align="left",
        font={"size": 13, "color": look.ink},
    )
    drawn.update_layout(
        margin_t=drawn.layout.margin.t + TITLE,
        height=drawn.layout.height + TITLE,
        width=max(LEAST, drawn.layout.width),
    )
    return drawn


def _title(place: xr.Dataset) -> str:
    at = f"position {int(place['position'])} {visible(str(place['token'].item()))}"
    sums = f"{float(place['logit']):+.3f}; all terms sum to it within {abs(float(place['residual'])):.1e}"
    return f"<b>{markup(attributed(place))}</b><br>{markup(f'{at}: {sums}')}"
