"""A desk with one worker for the whole folder; starting one takes seconds."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.jobs.gates import Gates
from tests.tiny import hf_model, tokenizer
from workbench.jobs import Desk, ModelSpec

TOYS = str(Path(__file__).parent / "toys")


@pytest.fixture(scope="package", autouse=True)
def toys() -> Iterator[None]:
    """The plug-in package of toy instruments, on the path as an installed one is."""
    sys.path.append(TOYS)
    yield
    sys.path.remove(TOYS)


@pytest.fixture(scope="package")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny model as save_pretrained leaves it."""
    folder = tmp_path_factory.mktemp("tiny-gpt2")
    hf_model("gpt2", torch.float32).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="package")
def specs(tiny_folder: str) -> dict[str, ModelSpec]:
    return {
        "tiny": ModelSpec(tiny_folder),
        "atlas": ModelSpec("atlas"),
        "absent": ModelSpec("/no/such/folder"),
    }


@pytest.fixture(scope="package")
def desk(
    toys: None, specs: dict[str, ModelSpec], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Desk]:
    home = tmp_path_factory.mktemp("home")
    with Desk(home, specs, devices=("cpu",), preload="tiny", grace=1.0, threads=1) as desk:
        yield desk


@pytest.fixture
def gates(tmp_path: Path) -> Iterator[Gates]:
    gates = Gates(tmp_path)
    yield gates
    gates.close()
