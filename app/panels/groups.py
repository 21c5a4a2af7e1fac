"""What every installed instrument has for the layer axis, or why it has nothing."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from app.bench import Bench
from app.instruments import kinds, of_one_prompt, shares_the_pass
from app.state import Run, Selection
from workbench import WorkbenchError
from workbench.figures import Panel
from workbench.instrument import Instrument

__all__ = ["NOT_RUN", "Group", "groups", "needs_own_run", "not_measured", "visible_panels"]

NOT_RUN = "not yet run on this prompt"


@dataclass(frozen=True)
class Group:
    """One instrument's panels.

    Attributes:
        instrument: its name.
        title: how the page calls it.
        panels: all that it has at the selected place.
        note: why it has none; "" where it has, or is switched off.
    """

    instrument: str
    title: str
    panels: Sequence[Panel] = ()
    note: str = ""


def groups(bench: Bench, run: Run, at: Selection, off: Collection[str]) -> list[Group]:
    """One group for each installed instrument; those switched off as a whole draw nothing."""
    return [_group(name, bench, run, at, off) for name in of_one_prompt()]


def visible_panels(found: Sequence[Group], off: Collection[str]) -> Mapping[str, list[Panel]]:
    """Panels that are switched on, by their instrument's title; instruments without any fall out."""
    on = {
        group.title: [p for p in group.panels if f"{group.instrument}.{p.name}" not in off]
        for group in found
        if group.instrument not in off
    }
    return {title: panels for title, panels in on.items() if panels}


def needs_own_run(kind: type[Instrument]) -> bool:
    """Whether it is run from its own tab, and not with every prompt."""
    return not shares_the_pass(kind)


def not_measured(name: str, run: Run) -> str:
    """Why a run has no result of an instrument."""
    if name in run.refused:
        return run.refused[name]
    if needs_own_run(kinds()[name]):
        return NOT_RUN
    return "not measured with this prompt: press Run"


def _group(name: str, bench: Bench, run: Run, at: Selection, off: Collection[str]) -> Group:
    kind = kinds()[name]
    if name in off:
        return Group(name, kind.title)
    result = bench.result(run, name)
    if result is None:
        return Group(name, kind.title, note=not_measured(name, run))
    try:
        panels = kind.panels(result.data, prompt=at.prompt, position=at.position, site=at.site)
    except WorkbenchError as error:
        return Group(name, kind.title, note=str(error))
    except Exception as error:  # an installed instrument's fault must not take the others' panels
        logging.getLogger(__name__).exception("the panels of %s failed", name)
        line = f"unexpected {type(error).__name__}; the terminal has the details"
        return Group(name, kind.title, note=line)
    return Group(
        name, kind.heading(result.data), panels, "" if panels else "has nothing along the layers"
    )
