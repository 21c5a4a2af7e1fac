"""Two looks, light and dark, as plain values: no figure ever touches plotly's global templates.

The colour scales stop early, so that one fixed ink stays legible on every cell: dark ink on the
light scales, light ink on the dark ones (contrast of at least 4.5 to 1 everywhere, tested).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["DARK", "LIGHT", "MONOSPACE", "Theme", "themed"]

MONOSPACE = "DejaVu Sans Mono, Menlo, Consolas, monospace"
SANS = "system-ui, -apple-system, Segoe UI, DejaVu Sans, Arial, sans-serif"


@dataclass(frozen=True)
class Theme:
    """The colours of one look.

    `hues` maps a hue's name to its stops, from nothing to most; of "signed", from most negative
    through 0 to most positive.
    """

    name: str
    paper: str
    ink: str
    muted: str
    rule: str
    accent: str
    cell_ink: str
    series: tuple[str, ...]
    hues: Mapping[str, tuple[str, ...]]

    def layout(self, **more: Any) -> dict[str, Any]:
        """Layout settings shared by every figure of this look, with `more` on top."""
        shared = {
            "template": {},
            "paper_bgcolor": self.paper,
            "plot_bgcolor": self.paper,
            "font": {"family": SANS, "size": 12, "color": self.ink},
            "hoverlabel": {
                "bgcolor": self.paper,
                "bordercolor": self.muted,
                "font": {"family": MONOSPACE, "size": 12, "color": self.ink},
                "align": "left",
            },
        }
        return shared | more

    def axis(self, title: str = "", **more: Any) -> dict[str, Any]:
        """Settings of one axis: fixed range, thin rules, the title with its unit."""
        shared = {
            "title": {"text": title, "font": {"color": self.muted}, "standoff": 6},
            "fixedrange": True,
            "showgrid": False,
            "zeroline": False,
            "linecolor": self.rule,
            "gridcolor": self.rule,
            "ticks": "",
        }
        return shared | more


LIGHT = Theme(
    name="light",
    paper="#ffffff",
    ink="#1a1d23",
    muted="#4d5562",
    rule="#e3e6ea",
    accent="#c92a2a",
    cell_ink="#14181f",
    series=("#1864ab", "#b8500f", "#2b7a3d", "#6741a8"),
    hues={
        "blue": ("#f7fbff", "#deebf7", "#bdd7ec", "#9ac8e1", "#74b3d8"),
        "purple": ("#fcfbfd", "#efedf5", "#dadaeb", "#bcbddc", "#a9a5d0"),
        "orange": ("#fff8f0", "#fee6ce", "#fdd0a2", "#fdb97d", "#fa9c53"),
        "green": ("#f7fcf5", "#e1f3db", "#c3e7bc", "#a0d69b", "#7cc47f"),
        "signed": ("#d9705e", "#f3b49c", "#f7f7f7", "#a9d0e5", "#5aa2cd"),
    },
)

DARK = Theme(
    name="dark",
    paper="#1a1d23",
    ink="#e8ebf0",
    muted="#aeb6c2",
    rule="#343a44",
    accent="#ff8787",
    cell_ink="#f4f6f9",
    series=("#74c0fc", "#ffa94d", "#8ce99a", "#b197fc"),
    hues={
        "blue": ("#1d232d", "#1c3550", "#1c4a76", "#1d5c93", "#2068a6"),
        "purple": ("#211f2b", "#332d4d", "#483d71", "#5b4b91", "#6956a6"),
        "orange": ("#28211a", "#46301a", "#66401a", "#824d18", "#965714"),
        "green": ("#1b2521", "#1c3d2e", "#1d543c", "#1e6846", "#1f754e"),
        "signed": ("#9a4434", "#5e342e", "#23272f", "#1c4a76", "#2068a6"),
    },
)


def themed(name: str) -> Theme:
    """The look called `name`, "light" or "dark".

    Raises:
        ValueError: there is no such look.
    """
    looks = {look.name: look for look in (LIGHT, DARK)}
    if name not in looks:
        raise ValueError(f"theme {name!r} is not one of {', '.join(looks)}")
    return looks[name]
