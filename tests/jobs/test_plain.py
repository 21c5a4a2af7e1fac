"""Instruments, prompts and specs come back from JSON as they were."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import workbench as wb
from lenses import LogitLens
from tests.test_passes import LossOfNext
from workbench.jobs import ModelSpec, Request
from workbench.jobs.plain import (
    canonical,
    instrument_of,
    json_lines,
    plain_instrument,
    plain_prompts,
    prompts_of,
)

PROMPTS = wb.PromptSet.of(
    [
        wb.Prompt("Rome is in", id="a", target=" Italy", foil=7, subject="Rome", group="Rome"),
        wb.Prompt(
            "é \U0001f5fc </script>", subject=(0, 1), labels={"x": [1, None]}, extra={"n": 0.5}
        ),
        wb.Prompt("bare"),
    ]
)


def through_json(plain: Any) -> Any:
    return json.loads(canonical(plain))


@pytest.mark.parametrize(
    "positions",
    ["all", "last", "last_subject", 3, -1, [2, 0], slice(None), slice(1, -1), slice(None, None, 2)],
)
def test_positions_travel(positions: Any) -> None:
    lens = LogitLens(top_k=3, sites=("resid_post", "mlp_out"), positions=positions)
    assert instrument_of(through_json(plain_instrument(lens))) == lens


def test_sites_given_as_a_list_travel() -> None:
    lens = LogitLens(sites=["resid_mid", "attn_out"])
    back = instrument_of(through_json(plain_instrument(lens)))
    assert back == LogitLens(sites=("resid_mid", "attn_out"))


def test_an_instrument_that_is_not_installed_is_refused() -> None:
    with pytest.raises(wb.SettingError, match="unknown instrument 'loss_of_next'"):
        plain_instrument(LossOfNext())


def test_an_instrument_under_anothers_name_is_refused() -> None:
    class Impostor(LogitLens):
        pass

    with pytest.raises(wb.SettingError, match="logit_lens: another instrument is installed"):
        plain_instrument(Impostor())


def test_a_setting_that_json_cannot_carry_is_refused() -> None:
    from workbench_toys import Gate

    with pytest.raises(wb.SettingError, match=r"toy_gate: folder is PosixPath.*JSON can carry"):
        plain_instrument(Gate(Path("pipes")))


def test_prompts_travel_whole() -> None:
    assert prompts_of(through_json(plain_prompts(PROMPTS))) == PROMPTS


def test_a_subset_keeps_its_names() -> None:
    subset = wb.PromptSet.of(["a", "b", "c"]).subset([2, 0])
    assert prompts_of(through_json(plain_prompts(subset))).names == [2, 0]


@pytest.mark.parametrize("labels", [{1, 2}, np.array([1, 2])])
def test_labels_that_json_cannot_carry_are_refused(labels: Any) -> None:
    prompts = wb.PromptSet.of(wb.Prompt("x", labels=labels))
    with pytest.raises(wb.PromptError, match="labels or extra fields are no plain data"):
        plain_prompts(prompts)


def test_half_a_character_in_an_extra_field_travels() -> None:
    prompts = wb.PromptSet.of(wb.Prompt("x", extra={"note": "\ud800"}))
    assert prompts_of(json.loads(canonical(plain_prompts(prompts)).encode())) == prompts


def test_specs_travel() -> None:
    spec = ModelSpec("atlas", dtype="bfloat16", device="cuda:1", revision="main")
    assert ModelSpec.of(through_json(spec.plain())) == spec


def test_a_spec_of_what_cannot_travel_is_refused() -> None:
    with pytest.raises(wb.SettingError, match="model dtype is torch.float32: expected text"):
        ModelSpec("atlas", dtype=torch.float32)  # type: ignore[arg-type]


def test_a_request_names_itself_and_refuses_twins() -> None:
    assert Request("atlas", ["a", "b"], [LogitLens()]).title == "logit_lens of 2 prompts"
    with pytest.raises(wb.SettingError, match="one is named twice"):
        Request("atlas", "a", [LogitLens(), LogitLens(top_k=2)])
    with pytest.raises(wb.SettingError, match="no instruments"):
        Request("atlas", "a", [])


def test_prompts_come_back_from_a_file_of_lines(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(json_lines(PROMPTS), encoding="utf-8")
    assert wb.PromptSet.read(path).prompts == PROMPTS.prompts
