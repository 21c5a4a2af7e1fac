"""Panels of two results as groups of panels: each one's own, both together, and the difference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import xarray as xr

from workbench.figures.panels import Bars, Heat, Line, Lines, Panel
from workbench.figures.scale import Scale

__all__ = ["compared"]

LONGEST = 24  # letters that fit over a panel, or beside its line in the legend


def compared(
    base: Sequence[Panel], tuned: Sequence[Panel], names: tuple[str, str]
) -> Mapping[str, Sequence[Panel]]:
    """Groups for `layer_panels`: what `base` shows, `tuned`, both in one panel, and `tuned` - `base`.

    Lines of both stand in one panel, one for each quantity; other panels stand side by side.
    Differences are shown of all but words. Panels without a namesake in the other are left out.

    Args:
        names: what the two are called.
    """
    partners = {panel.name: panel for panel in tuned}
    pairs = [(panel, partners[panel.name]) for panel in base if panel.name in partners]
    alone = [pair for pair in pairs if not isinstance(pair[0], Lines)]
    groups = {
        names[0]: [one for one, _ in alone],
        names[1]: [other for _, other in alone],
        "both models": [panel for pair in pairs for panel in _together(*pair, names)],
        "difference": [panel for pair in pairs for panel in _differences(*pair)],
    }
    return {name: panels for name, panels in groups.items() if panels}


def _together(base: Panel, tuned: Panel, names: tuple[str, str]) -> Iterator[Panel]:
    """A panel for each line that both have, with both of it."""
    if not isinstance(base, Lines) or not isinstance(tuned, Lines):
        return
    called = names if max(map(len, names)) <= LONGEST else ("base", "tuned")
    for line, one in base.lines.items():
        if line in tuned.lines:
            both = dict(zip(called, (one, tuned.lines[line]), strict=True))
            yield Lines(f"{base.name}-{line}", _titled(line, one), both, base.ends)


def _titled(line: str, one: Line) -> str:
    """The line's name with its unit, where there is room for it."""
    full = f"{line}, {one.values.attrs.get('unit', '')}".removesuffix(", ")
    return full if len(full) <= LONGEST else line


def _differences(base: Panel, tuned: Panel) -> Iterator[Panel]:
    if isinstance(base, Lines) and isinstance(tuned, Lines):
        lines = {
            name: Line(tuned.lines[name].values - line.values)
            for name, line in base.lines.items()
            if name in tuned.lines and not line.control
        }
        if lines:
            yield Lines(base.name, base.title, lines)
    elif isinstance(base, Bars) and isinstance(tuned, Bars):
        yield Bars(base.name, base.title, tuned.values - base.values)
    elif isinstance(base, Heat) and isinstance(tuned, Heat):
        yield _heat(base, tuned.values - base.values)


def _heat(base: Heat, difference: xr.DataArray) -> Heat:
    end = float(abs(difference).max()) or 1.0
    scale = Scale("difference", base.scale.unit, "signed", -end, end)
    return Heat(base.name, base.title, difference, scale)
