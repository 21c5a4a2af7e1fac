"""What the page Prompt sets shows of a result: one file an instrument that has a view of its own."""

from __future__ import annotations

from collections.abc import Mapping

from app.summaries import generic, sparse_probe
from app.summaries.view import SetView

__all__ = ["OWN", "SetView", "view_of"]

OWN: Mapping[str, SetView] = {"sparse_probe": sparse_probe.VIEW}
"""Views of their own, by the instrument's name."""


def view_of(instrument: str) -> SetView:
    """The view of an instrument's result; every installed one has one."""
    return OWN.get(instrument, generic.VIEW)
