"""What the tabs make of results: groups of panels, chips, tokens, tables."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import workbench as wb
from app.instruments import configured, kinds
from app.panels import layers_table, rows_table, tabs
from app.panels.chips import chips
from app.panels.groups import Group, groups, visible_panels
from app.panels.tokens import shown, tokens
from app.state import Asked, Run, Selection, Shown
from workbench.figures import Bars, Heat, Line, Lines, Panel, Scale, Words

TOYS = Path(__file__).parent.parent / "browser" / "toys"
TEXT = "The Eiffel Tower is located in the city of"
AT = Selection("0", 6, 11, "resid_post")
SCALE = Scale("x", "1", "blue", 0.0, 1.0)


class Desk:
    """Results by instrument, in place of a bench."""

    def __init__(self, *results: wb.Result) -> None:
        self.found = {result.instrument: result for result in results}

    def result(self, run: Run, instrument: str) -> wb.Result | None:
        return self.found.get(instrument)


@pytest.fixture(scope="module", autouse=True)
def toys() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(TOYS))
        yield


@pytest.fixture(scope="module")
def results(toys: None) -> dict[str, wb.Result]:
    prompts = [wb.Prompt(TEXT, target=" Paris"), wb.Prompt(" \n<b>", id="other")]
    names = ("logit_lens", "strength", "swing", "whole_set")
    found = wb.measure(wb.load(), prompts, [configured(name, {}) for name in names])
    return dict(zip(names, found, strict=True))


def run(**refused: str) -> Run:
    return Run(Asked("atlas", TEXT), 6, 12, "", "", {}, refused, {})


def found_of(*results: wb.Result, off: tuple[str, ...] = (), **refused: str) -> dict[str, Group]:
    desk: Any = Desk(*results)
    return {it.instrument: it for it in groups(desk, run(**refused), AT, off)}


def test_every_installed_instrument_has_a_tab() -> None:
    own = ["logit_lens", "attention", "causal_trace"]
    others = [name for name, kind in kinds().items() if name not in own and not kind.needs_set]
    assert [tab.name for tab in tabs()] == ["layers", *own, *others]
    assert {"strength", "swing", "whole_set"} <= set(kinds())


def test_a_faulty_plug_in_leaves_the_others_their_panels(
    results: dict[str, wb.Result],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def faulty(*_: Any, **__: Any) -> None:
        raise KeyError("its own mistake")

    monkeypatch.setattr(kinds()["strength"], "panels", faulty)
    found = found_of(*results.values())
    assert found["strength"].note == "unexpected KeyError; the terminal has the details"
    assert "its own mistake" in caplog.text
    assert [panel.name for panel in found["swing"].panels] == ["swing"]
    assert [panel.name for panel in found["whole_set"].panels] == ["mean_length"]


def test_what_is_missing_is_said(results: dict[str, wb.Result]) -> None:
    found = found_of(results["logit_lens"], swing="swing: too many layers")
    assert found["strength"].note == "not measured with this prompt: press Run"
    assert found["whole_set"].note == "not yet run on this prompt"
    assert found["swing"].note == "swing: too many layers"
    assert found_of(results["logit_lens"], off=("strength",))["strength"].note == ""


def test_what_is_off_is_not_drawn(results: dict[str, wb.Result]) -> None:
    off = ("logit_lens.tokens", "strength")
    on = visible_panels(list(found_of(*results.values(), off=off).values()), off)
    assert {title: [p.name for p in panels] for title, panels in on.items()} == {
        "Logit lens": ["positions", "probability", "spread"],
        "Swing <i>": ["swing"],
        "Whole set": ["mean_length"],
    }


def test_chips_say_what_is_on_and_why_there_is_nothing(results: dict[str, wb.Result]) -> None:
    off = ("strength.length",)
    found = found_of(results["logit_lens"], results["strength"], off=off)
    said = {
        group.to_plotly_json()["props"]["aria-label"]: [
            (part.children, getattr(part, "aria-pressed", None)) for part in group.children
        ]
        for group in chips([found[name] for name in ("swing", "strength", "whole_set")], off)
    }
    assert said == {
        "Strength": [("Strength", "true"), ("length", "false")],
        "Not yet run on this prompt": [
            ("Not yet run on this prompt:", None),
            ("Swing <i>", None),
            ("Whole set", None),
        ],
    }


def test_tokens_are_those_that_any_instrument_has_read(results: dict[str, wb.Result]) -> None:
    whole = tokens(results.values(), "other")
    assert "".join(whole.values()) == " \n<b>"
    last = max(whole)
    assert tokens([results["swing"], results["whole_set"]], "other") == {last: whole[last]}
    assert shown({0: " ", 1: "<b>"}) == [(0, "·"), (1, "<b>")]


def along(*values: float) -> xr.DataArray:
    return xr.DataArray(np.array(values), dims="layer", coords={"layer": range(len(values))})


def grid(other: str, names: list[Any]) -> xr.DataArray:
    values = np.arange(2.0 * len(names)).reshape(2, -1)
    return xr.DataArray(values, dims=("layer", other), coords={"layer": [0, 1], other: names})


def test_the_table_has_a_column_for_each_line_token_and_part() -> None:
    panels: list[Panel] = [
        Lines(
            "a",
            "A, nat",
            {
                "own": Line(along(1, np.nan, 3), along(0.5, 1, 2), along(1.5, 2, 4)),
                "twin": Line(along(0, 0, 0), control=True),
            },
        ),
        Words("w", "W", grid("k", [1]).astype(str).astype(object), grid("k", [1]), SCALE),
        Heat("h", "H", grid("position", [4, 9]), SCALE),
        Bars("b", "B", grid("part", ["mlp", "attention"])),
    ]
    found = layers_table.columns({"Toy": panels}, position=9)
    assert [(column.panel, column.name) for column in found] == [
        ("A, nat", "own"),
        ("A, nat", "twin (control)"),
        ("W", "k 1"),
        ("H", "position 9"),
        ("B", "part mlp"),
        ("B", "part attention"),
    ]
    rows = layers_table.records(found)
    assert [row["layer"] for row in rows] == [2, 1, 0]
    assert [row["Toy: A, nat: own"] for row in rows] == ["3 (2 to 4)", "", "1 (0.5 to 1.5)"]
    assert [row["Toy: H: position 9"] for row in rows] == ["", "3", "1"]
    assert rows[2]["Toy: W: k 1"] == "0.0 0"


def test_a_wide_table_says_how_many_columns_it_leaves_out() -> None:
    wide = Heat("h", "H", grid("head", list(range(60))), SCALE)
    found = layers_table.columns({"Toy": [wide]}, position=0)
    assert len(found) == 60
    table, more = layers_table.table(found, selected=1)
    names = table.children[0].children[1].children
    assert len(names) == 48
    assert more.children.startswith("12 more columns")


def test_rows_are_those_of_the_selected_prompt(results: dict[str, wb.Result]) -> None:
    lens = list(rows_table.rows_of(results["logit_lens"], "other"))
    assert {row["prompt"] for row in lens} == {"other"}
    every = results["logit_lens"].rows()
    assert lens == [row for row in every if row["prompt"] == "other"]
    assert len(list(rows_table.rows_of(results["whole_set"], "other"))) == 7


def test_rows_are_shown_as_texts() -> None:
    rows = [
        {
            "a.b": [["x", 1.23456789]],
            "list": [1, 2],
            "token": " ",
            "none": None,
            "zero": -0.0,
            "n": 3,
            "e": 1e-9,
        }
    ]
    assert rows_table.texts(iter(rows)) == [
        {
            "a.b": "x 1.235",
            "list": "[1, 2]",
            "token": "·",
            "none": "",
            "zero": "0",
            "n": "3",
            "e": "1e-09",
        }
    ]


def test_a_long_table_says_how_many_rows_it_leaves_out(
    results: dict[str, wb.Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    total = len(list(rows_table.rows_of(results["strength"], "0")))
    assert len(rows_table.layout({"type": "rows"}, results["strength"], "0")) == 2
    monkeypatch.setattr(rows_table, "MOST", 5)
    monkeypatch.setattr(rows_table, "PAGE", 2)
    place, turning, more = rows_table.layout({"type": "rows"}, results["strength"], "0")
    assert len(place.children.children[1].children) == 2
    assert turning.children.total == 3
    assert more.children.startswith(f"The first 5 of {total} rows")
    assert len(rows_table.texts(rows_table.rows_of(results["strength"], "0"))) == 5


def test_a_tab_of_several_figures_draws_the_one_that_is_chosen() -> None:
    """The list stands in the address, and exports take what it says."""
    found = configured("particles", {"views": "raw"})(
        wb.load(), "The Eiffel Tower is in the city of"
    )
    (tab,) = [tab for tab in tabs() if tab.name == "particles"]
    (linked,) = tab.linked.items()
    assert linked[0] == "particles_shows"
    assert list(linked[1].values) == ["order", "cosines", "component"]
    desk: Any = Desk(found)
    kinds_of = {}
    for chosen in linked[1].values:
        shown = Shown(run(), Selection(0, 3, 2, "resid_post"), "light", (), {linked[0]: chosen})
        drawn = tab.figure(desk, shown)
        assert drawn is not None
        kinds_of[chosen] = {trace.type for trace in drawn.data}
    assert kinds_of == {"order": {"scatter"}, "cosines": {"heatmap"}, "component": {"heatmap"}}
    assert all(not tab.linked for tab in tabs() if tab.name == "strength")
