"""What the page keeps."""

from __future__ import annotations

import pytest

import workbench as wb
from app import bench as rooms
from app.bench import Bench
from app.state import Asked, prompt_id


def test_a_model_is_loaded_when_asked_for_and_once() -> None:
    loads = []

    def load() -> wb.Model:
        loads.append("atlas")
        return wb.load()

    bench = Bench({"atlas": load})
    assert loads == []
    first = bench.measure(Asked("atlas", "The city of"))
    assert bench.measure(Asked("atlas", "The city of")) is first
    bench.measure(Asked("atlas", "The river"))
    assert loads == ["atlas"]


def test_prompts_are_known_by_their_id() -> None:
    bench = Bench({"atlas": wb.load})
    assert bench.text(prompt_id("The city of")) is None
    bench.measure(Asked("atlas", "The city of"))
    assert bench.text(prompt_id("The city of")) == "The city of"


def test_only_the_latest_results_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "KEPT", 1)
    bench = Bench({"atlas": wb.load})
    first = bench.measure(Asked("atlas", "The city of"))
    bench.measure(Asked("atlas", "The river"))
    assert bench.measure(Asked("atlas", "The city of")) is not first


def test_an_unknown_model_is_named_with_the_known_ones() -> None:
    with pytest.raises(wb.ModelError, match="no model 'gpt2' here: expected one of atlas"):
        Bench({"atlas": wb.load}).measure(Asked("gpt2", "The city of"))


def test_a_page_without_models_makes_no_sense() -> None:
    with pytest.raises(ValueError, match="no models"):
        Bench({})
