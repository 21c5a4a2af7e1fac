"""`workbench fit` from a shell's point of view: a file, progress, interrupt, resume, exit codes."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from app import fit_command
from app.cli import cli
from lenses import load_lens

TEXT = "The capital of France is Paris.\nThe capital of Japan is Tokyo.\nRome is in Italy.\n" * 4
BRIEF = ["--set", "steps=6", "--set", "tokens=32", "--set", "length=16", "--set", "batch_tokens=16"]


def invoke(*args: str) -> Result:
    return CliRunner().invoke(cli, list(args))


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_a_fitted_lens_is_a_file_that_run_reads(text: Path, tmp_path: Path) -> None:
    out = tmp_path / "tuned.safetensors"
    words = ["fit", "tuned_lens", "--text", str(text), "--out", str(out), *BRIEF]
    planned = invoke(*words, "--plan")
    assert "6 steps" in planned.stdout
    assert not out.exists()
    done = invoke(*words, "--json")
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["hash"] == load_lens(out).hash
    assert len(said["held_out"]["after"]) == 6
    assert said["settings"]["steps"] == 6
    rows = invoke("run", "logit_lens", "--prompt", "Rome", "--set", f"lens={out}", "--json")
    assert rows.exit_code == 0, rows.output
    assert {row["lens"] for row in json.loads(rows.stdout)} == {f"Tuned lens {said['hash'][:8]}"}


def test_a_fitted_sae_is_a_folder_that_probes_read(text: Path, tmp_path: Path) -> None:
    out = tmp_path / "sae"
    brief = [*BRIEF, "--set", "layer=2", "--set", "latents=32", "--set", "k=4"]
    words = ["fit", "sae", "--text", str(text), "--out", str(out), *brief]
    assert "6 steps, a forward pass to layer 2" in invoke(*words, "--plan").stdout
    done = invoke(*words)
    assert done.exit_code == 0, done.output
    assert "PCA of rank 4" in done.stdout
    assert sorted(file.name for file in out.iterdir()) == ["cfg.json", "sae_weights.safetensors"]
    again = invoke(*words)
    assert again.exit_code == 2
    assert "is there already" in again.stderr.splitlines()[-1]
    labelled = tmp_path / "labelled.jsonl"
    lines = [
        {"text": f"{'The city' if i % 2 else 'A man'} {i}", "labels": {"city": i % 2}}
        for i in range(24)
    ]
    labelled.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    chosen = [f"sae={out}", "k=1", "layers=2", "permutations=0", "dense=true"]
    settings = [word for one in chosen for word in ("--set", one)]
    rows = invoke("run", "sparse_probe", "--prompts", str(labelled), *settings, "--json")
    assert rows.exit_code == 0, rows.output
    found = json.loads(rows.stdout)
    assert [row["site"] for row in found] == ["mlp_act", "sae:resid_post"]
    assert all(row["dense_f1"] is not None for row in found)


def test_an_interrupt_keeps_a_checkpoint_to_go_on_from(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, whole = tmp_path / "b.safetensors", tmp_path / "a.safetensors"
    words = ["fit", "tuned_lens", "--text", str(text), *BRIEF]
    assert invoke(*words, "--out", str(whole)).exit_code == 0

    def interrupting(_: Any) -> Any:
        def shown(progress: Any) -> None:
            if progress.done > progress.total / 2:
                signal.raise_signal(signal.SIGINT)

        return shown

    with monkeypatch.context() as patched:
        patched.setattr(fit_command, "ProgressLine", interrupting)
        stopped = invoke(*words, "--out", str(out))
    assert stopped.exit_code == 1
    assert "run the same command with --resume to go on" in stopped.stderr
    assert not out.exists()
    again = invoke(*words, "--out", str(out))
    assert again.exit_code == 2
    assert "give --resume to go on, or remove it" in again.stderr
    done = invoke(*words, "--out", str(out), "--resume")
    assert done.exit_code == 0, done.output
    assert out.read_bytes() == whole.read_bytes()
    assert not (tmp_path / "b.checkpoint").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["fit", "probe", "--text", "{text}"],
            "no fit 'probe': expected one of tuned_lens, jacobian_lens, sae",
        ),
        (["fit", "tuned_lens"], "expected either --text FILE or --prompts FILE"),
        (["fit", "tuned_lens", "--text", "none.txt"], "no file none.txt"),
        (["fit", "tuned_lens", "--text", "{text}", "--set", "stepps=3"], "has no setting 'stepps'"),
        (["fit", "tuned_lens", "--text", "{text}", "--resume"], "to resume from"),
        (
            ["fit", "jacobian_lens", "--text", "{text}", "--set", "length=12"],
            "leave none: lower them",
        ),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    words: list[str], said: str, text: Path, tmp_path: Path
) -> None:
    out = tmp_path / "x.safetensors"
    done = invoke(*[word.format(text=text) for word in words], "--out", str(out))
    assert done.exit_code == 2
    assert said in done.stderr.splitlines()[-1]
    assert not out.exists()
