"""`workbench doctor`: what is here, and what holds on a model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

import workbench as wb
from app import doctor
from app.cli import cli
from tests.tiny import hf_model, tokenizer


def invoke(*args: str) -> Result:
    return CliRunner().invoke(cli, ["doctor", *args])


def saved(family: str, folder: Path) -> str:
    hf_model(family, torch.float32).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return str(folder)


def test_what_is_installed() -> None:
    done = invoke()
    assert done.exit_code == 0, done.output
    assert f"torch {torch.__version__}" in done.stdout
    assert "CUDA devices: " in done.stdout


def test_what_holds_on_a_model_is_a_number_at_every_site() -> None:
    done = invoke("--model", "atlas")
    assert done.exit_code == 0, done.output
    assert "<atlas: gpt2, 6 blocks" in done.stdout
    rows = {line.split()[1]: line for line in done.stdout.splitlines() if line.startswith("| ")}
    assert {"embed", "resid_mid", "attn_out", "pattern", "z", "logits"} <= rows.keys()
    assert "FAILS" not in done.stdout
    # Cross attention alone: three sites, in each of eight comparisons.
    assert "117 hold, 24 refused, 0 fail" in done.stdout


@pytest.mark.parametrize("engine", ["torch", "nnsight", "transformer_lens"])
def test_what_is_refused_is_said_by_name(engine: str, tmp_path: Path) -> None:
    done = invoke("--model", saved("gpt_neox", tmp_path), "--engine", engine)
    assert done.exit_code == 0, done.output
    assert ": gpt_neox has no resid_mid: attention and MLP run in parallel" in done.stdout
    assert "0 fail" in done.stdout


def test_what_fails_gives_exit_code_1(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An engine whose gradients are twice too large."""
    grad = wb.TorchModel.grad

    def doubled(*args: object, **kwargs: object) -> wb.Captures:
        found = grad(*args, **kwargs)  # type: ignore[arg-type]
        for value in found.values.values():
            value.mul_(2)
        return found

    monkeypatch.setattr(wb.TorchModel, "grad", doubled)
    done = invoke("--model", saved("gpt2", tmp_path))
    assert done.exit_code == 1
    assert "FAILS" in done.stdout
    assert ": error " in done.stdout


def test_a_model_without_known_parts_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*_: object) -> None:
        raise LookupError("no list of blocks takes the first hidden state")

    monkeypatch.setattr("workbench.conformance.oracle.stacks_of", lost)
    lines: list[str] = []
    assert not doctor.examine(wb.load(), "torch", lines.append)
    assert lines[-1].startswith("FAILS: its parts cannot be found to compare")


def test_an_unknown_engine_is_one_line() -> None:
    done = invoke("--model", "atlas", "--engine", "jax")
    assert done.exit_code == 2
    assert "engine 'jax' is not supported" in done.stderr
