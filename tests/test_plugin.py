"""An instrument from another package is found everywhere, without a change to the project."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch.nn.functional import cosine_similarity

import workbench as wb
from tests.installed import install
from tests.tiny import model
from workbench.instrument import find, names
from workbench.settings import configure, settings_of

ROOT = Path(__file__).parent.parent
TEXTS = ["abc", "abcdef", "x"]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    site = install(ROOT / "examples" / "plugin", tmp_path / "site")
    monkeypatch.syspath_prepend(str(site))
    yield site
    sys.modules.pop("direction", None)


def workbench(site: Path, *words: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(site), str(ROOT)])
    return subprocess.run(
        [sys.executable, "-m", "app.cli", *words],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )


def test_it_is_found_with_its_settings(site: Path) -> None:
    assert "direction" in names()
    kind = find("direction")
    assert [(s.name, s.default, s.choices) for s in settings_of(kind)] == [
        ("center", "none", ("none", "mean"))
    ]


@pytest.mark.parametrize("center", ["none", "mean"])
def test_its_numbers_are_the_cosines(site: Path, center: str) -> None:
    hooked = model("gpt2", torch.float64)
    result = configure("direction", [f"center={center}"])(hooked, TEXTS, batch_size=2)
    for index, text in enumerate(TEXTS):
        states = hooked.capture(text, "resid_post").stack("resid_post")
        if center == "mean":
            states = states - states.mean(1, keepdim=True)
        one = result.data.isel(place=(result.data.prompt == index).values)
        for layer, here in enumerate(states):
            own = cosine_similarity(here, states[-1], dim=-1)
            torch.testing.assert_close(
                torch.from_numpy(one["cosine"].values[layer]).double(), own, atol=1e-6, rtol=0
            )
            others = [
                torch.stack(
                    [cosine_similarity(h, s, dim=0) for j, s in enumerate(states[-1]) if i != j]
                )
                for i, h in enumerate(here)
                if len(here) > 1
            ]
            expected = [float(o.mean()) for o in others] or [float("nan")]
            torch.testing.assert_close(
                one["control"].values[layer].tolist(), expected, atol=1e-6, rtol=0, equal_nan=True
            )


def test_its_panel_has_the_control_and_its_defaults_draw(site: Path) -> None:
    result = configure("direction", [])(model("gpt2"), TEXTS)
    (panel,) = type(configure("direction", [])).panels(result.data, prompt=1, position=2)
    assert [line.control for line in panel.lines.values()] == [False, True]
    assert {trace.name for trace in result.plot().data} == {
        "own last state",
        "other positions' (control)",
    }
    row = result.rows()[0]
    assert set(row) == {"prompt", "position", "token", "layer", "cosine", "control"}
    both = wb.plot_layers([result, configure("logit_lens", [])(model("gpt2"), TEXTS)], prompt=1)
    assert [note.text for note in both.layout.annotations] == [
        "<b>Direction</b>",
        "<b>Logit lens</b>",
    ]


def test_the_command_line_runs_it(site: Path) -> None:
    done = workbench(
        site, "run", "direction", "--prompt", "The city of", "--set", "center=mean", "--json"
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert len(rows) == 7 * 3
    assert rows[-1]["cosine"] == pytest.approx(1, abs=1e-5)


def test_a_report_has_its_section(site: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "set.jsonl"
    prompts.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    out = tmp_path / "out"
    words = ["--instruments", "logit_lens,direction", "--set", "direction.center=mean"]
    done = workbench(site, "report", str(prompts), *words, "--out", str(out), "--json")
    assert done.returncode == 0, done.stderr
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Direction" in page
    assert "center=mean" in page
    (rows,) = out.glob("shards/*/direction.parquet")
    assert set(pd.read_parquet(rows)["prompt"]) == {0, 1, 2}
