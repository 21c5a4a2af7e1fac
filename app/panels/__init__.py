"""The tabs of the Inspector: one file a method that has a view of its own."""

from __future__ import annotations

from collections.abc import Mapping

from app.instruments import kinds
from app.panels import attention, causal_trace, generic, layers, logit_lens
from app.panels.tab import Linked, Tab

__all__ = ["Linked", "Tab", "tabs"]

OWN: Mapping[str, Tab] = {
    tab.name: tab for tab in (logit_lens.TAB, attention.TAB, causal_trace.TAB)
}
"""Tabs of instruments with a view of their own, by the instrument's name, in their order."""


def tabs() -> list[Tab]:
    """Layers, the instruments with views of their own, and every other one that is installed."""
    own = [tab for name, tab in OWN.items() if name in kinds()]
    others = [generic.tab(name) for name in kinds() if name not in OWN]
    return [layers.TAB, *own, *others]
