"""Figures as files."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

from lenses.logit.figures import figure
from tests.figures.readings import reading
from workbench.figures import BrowserMissingError, save_figure


def test_a_page_works_offline_and_uploads_nothing(tmp_path: Path) -> None:
    page = save_figure(figure(reading()), tmp_path / "lens.html").read_text()
    assert not re.search(r"<script[^>]+src=", page)
    config = page[page.rindex("Plotly.newPlot") :]
    assert re.search(r'"showSendToCloud":\s*false', config)


def test_vector_pictures_have_the_asked_width(tmp_path: Path) -> None:
    drawn = figure(reading())
    svg = save_figure(drawn, tmp_path / "lens.svg", width_mm=127).read_text()
    assert float(re.findall(r'<svg[^>]* width="([\d.]+)"', svg)[0]) == pytest.approx(480, abs=1)
    pdf = save_figure(drawn, tmp_path / "lens.pdf", width_mm=127).read_bytes()
    (width,) = re.findall(rb"/MediaBox \[0 0 ([\d.]+)", pdf)
    assert float(width) == pytest.approx(360, abs=1)


def test_pixel_pictures_have_300_dots_an_inch_and_the_asked_font(tmp_path: Path) -> None:
    png = save_figure(figure(reading()), tmp_path / "lens.png", width_mm=127, font_pt=6)
    width, _ = struct.unpack(">II", png.read_bytes()[16:24])
    assert width == pytest.approx(1500, abs=3)


def test_an_unknown_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'\.gif' is not one of \.html, \.png, \.svg, \.pdf"):
        save_figure(figure(reading()), tmp_path / "lens.gif")


def test_without_chromium_there_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from choreographer.browsers.chromium import Chromium

    monkeypatch.setattr(Chromium, "find_browser", lambda **_: None)
    with pytest.raises(BrowserMissingError, match="needs Chromium or Chrome") as caught:
        save_figure(figure(reading()), tmp_path / "lens.png")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
