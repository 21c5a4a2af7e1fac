"""Token text as a person can read it, and as no page can mistake for markup."""

from __future__ import annotations

import html
import unicodedata

__all__ = ["markup", "shorten", "visible"]

_NAMES = {
    " ": "·",
    "\n": "⏎",
    "\t": "⇥",
    "\r": "␍",
    "\u00a0": "⍽",
    "\u200b": "‹zwsp›",
    "\u200c": "‹zwnj›",
    "\u200d": "‹zwj›",
    "\ufeff": "‹bom›",
}
_UNSEEN = {"Cc", "Cf", "Co", "Cs", "Zl", "Zp", "Zs"}


def visible(token: str) -> str:
    r"""The token with every invisible character named.

    A space becomes a middle dot, a newline and a tab become symbols, other controls and
    separators their code point; the empty token is shown as "∅".

    >>> visible(" Paris"), visible("\n"), visible("\x07")
    ('·Paris', '⏎', '‹0007›')
    """
    return "".join(_seen(character) for character in token) or "∅"


def markup(text: str) -> str:
    """The text escaped for HTML and for plotly's own markup, which both read "<b>" as bold.

    >>> markup("<b>")
    '&lt;b&gt;'
    """
    return html.escape(text, quote=False)


def shorten(text: str, width: int) -> str:
    """The text cut to `width` monospace columns, the cut marked by "…".

    East Asian wide characters count two columns, combining marks none.

    >>> shorten("·international", 8)
    '·intern…'
    """
    if sum(map(_columns, text)) <= width:
        return text
    kept, used = "", 1
    for character in text:
        used += _columns(character)
        if used > width:
            break
        kept += character
    return kept + "…"


def _seen(character: str) -> str:
    if character in _NAMES:
        return _NAMES[character]
    if unicodedata.category(character) in _UNSEEN:
        return f"‹{ord(character):04x}›"
    return character


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
