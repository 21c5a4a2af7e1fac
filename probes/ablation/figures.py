"""The figure of ablations: all prompts or one, each effect beside its control."""

from __future__ import annotations

import plotly.graph_objects as go
import xarray as xr

from probes.ablation.panels import labels_of, of_prompt, panels
from probes.ablation.rows import settings_of
from workbench.figures import layer_panels, markup, shorten, themed

__all__ = ["figure"]

LINE, ABOVE = 22, 50  # pixels of a line of it, and for the panels' own titles below them
LEAST = 700  # pixels that the title needs
DONE = {"zero": "set to zero", "mean": "replaced by means", "resample": "resampled"}
OF = {"heads": "Heads", "mlp": "MLPs", "attention": "Attention blocks", "blocks": "Blocks"}


def figure(
    data: xr.Dataset,
    *,
    theme: str = "light",
    prompt: str | int | None = None,
    selected: tuple[int, int] | None = None,
) -> go.Figure:
    """The panels in a row, with a title that says what was ablated and over how many prompts.

    Raises:
        ResultError: the result has no such prompt.
    """
    shown = data if prompt is None else of_prompt(data, prompt)
    look, layer = themed(theme), None if selected is None else max(1, selected[0])
    drawn = layer_panels({"": panels(shown)}, look, layer=layer)
    settings = settings_of(data)
    if settings["each"] == "range":
        drawn.update_yaxes(title_text="first layer")
    lines = _title(shown, settings, prompt)
    drawn.add_annotation(
        text="<br>".join(lines),
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
        margin_t=drawn.layout.margin.t + LINE * len(lines),
        height=drawn.layout.height + LINE * len(lines),
        width=max(LEAST, drawn.layout.width),
    )
    return drawn


def _title(data: xr.Dataset, settings: dict[str, object], prompt: str | int | None) -> list[str]:
    n = data.sizes["place"]
    over = f"mean over {n} prompts" if n > 1 else "one prompt"
    named = "" if prompt is None else f" ({markup(shorten(str(prompt), 40))})"
    ranges = settings["each"] == "range"
    each = "every range of layers" if ranges else "each alone"
    done = f"{OF[str(settings['what'])]} {DONE[str(settings['how'])]}, {each}: {over}{named}"
    note = "Δ: ablated less clean. Control: as far in a random direction."
    if not ranges and settings["what"] != "heads":
        return [f"<b>{done}</b>", note]
    across = "last layers" if ranges else "heads"
    values = [markup(value) for value in sorted(set(labels_of(data)))]
    more = [f"Difference: {values[1]} less {values[0]}."] if len(values) == 2 else []
    return [f"<b>{done}</b>", f"{note} Across: {across}.", *more]
