"""Themes, token text, windows and axes."""

from __future__ import annotations

import doctest
import importlib

import pytest

from workbench.figures import DARK, LIGHT, Theme, page, rows, shorten, visible


def luminance(colour: str) -> float:
    channels = [value / 255 for value in bytes.fromhex(colour[1:])]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=lambda theme: theme.name)
def test_text_is_legible_on_every_cell(theme: Theme) -> None:
    for stops in theme.hues.values():
        assert min(contrast(theme.cell_ink, stop) for stop in stops) >= 4.5
    for ink in (theme.ink, theme.muted):
        assert contrast(ink, theme.paper) >= 4.5
    for colour in (*theme.series, theme.accent):
        assert contrast(colour, theme.paper) >= 3


@pytest.mark.parametrize("module", ["axes", "tokens", "window"])
def test_examples_in_docstrings(module: str) -> None:
    found = doctest.testmod(importlib.import_module(f"workbench.figures.{module}"))
    assert found.attempted > 0
    assert found.failed == 0


def test_invisible_characters_are_shown() -> None:
    assert visible(" a\n\t") == "·a⏎⇥"
    assert visible("") == "∅"
    assert visible("\u200b\u200d") == "‹zwsp›‹zwj›"
    assert visible("\u202e") == "‹202e›"


def test_wide_letters_count_twice() -> None:
    assert shorten("日本語日本語", 7) == "日本語…"
    assert shorten("abc", 3) == "abc"


def test_the_selected_layer_always_has_a_row() -> None:
    for count in (1, 7, 13, 25, 26, 49, 97):
        for layer in range(count):
            shown = rows(range(count), layer)
            assert {0, layer, count - 1} <= set(shown)
            assert len(shown) <= 27
            assert shown == sorted(set(shown))


def test_every_position_is_on_its_page() -> None:
    for count in (1, 12, 16, 17, 40, 256):
        for position in range(count):
            shown = page(count, position)
            assert position in shown
            assert len(shown) == min(count, 16)
