"""A store whose files were changed is refused, in one line, before anything of them is used."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import workbench as wb
from tests.tiny import model
from workbench.store.activations import Store
from workbench.store.capture import capture
from workbench.store.description import Description
from workbench.store.seals import seal

TEXTS = ["abc", "def", "ghi", "jkl"]
SHARD = Path("shards") / "00000001"
STATES = SHARD / "activations.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    live = model("gpt2", torch.float32)
    capture(live, TEXTS, sites="resid_post", out=tmp_path / "acts", shard_size=2)
    return tmp_path / "acts"


def flip(path: Path, at: int) -> None:
    """Change one bit of the byte at `at`."""
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def refusal(call: Callable[[], Any]) -> str:
    with pytest.raises(wb.ResultError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def read_all(store: Store) -> Any:
    return store.capture(store.prompts, ["resid_post"])


def test_a_flipped_bit_of_a_shard_is_refused_when_it_is_read(folder: Path) -> None:
    flip(folder / STATES, -1)
    store = Store.open(folder)
    store.capture(store.prompts[:2], ["resid_post"])
    expected = f"{folder / STATES} cannot be read: it is not as it was written; remove the folder"
    assert refusal(lambda: read_all(store)).startswith(expected)
    shutil.rmtree(folder / SHARD)
    live = model("gpt2", torch.float32)
    again = capture(live, TEXTS, sites="resid_post", out=folder, shard_size=2)
    assert len(read_all(again).places) == 12


def test_a_shard_is_checked_once(folder: Path) -> None:
    store = Store.open(folder)
    before = read_all(store)["resid_post", 3]
    (folder / SHARD / "seal.json").unlink()
    assert torch.equal(read_all(store)["resid_post", 3], before)


def test_the_file_of_another_shard_is_refused(folder: Path) -> None:
    shutil.copy(folder / "shards" / "00000000" / STATES.name, folder / STATES)
    assert "it is not as it was written" in refusal(lambda: read_all(Store.open(folder)))


def test_the_folder_of_another_shard_is_refused(folder: Path) -> None:
    shutil.copytree(folder / "shards" / "00000000", folder / SHARD, dirs_exist_ok=True)
    said = refusal(lambda: read_all(Store.open(folder)))
    assert "its rows are of other prompts or positions" in said


def test_the_folder_of_another_store_is_refused(folder: Path, tmp_path: Path) -> None:
    live = model("gpt2", torch.bfloat16)
    capture(live, TEXTS, sites="resid_post", out=tmp_path / "other", shard_size=2)
    shutil.copytree(tmp_path / "other" / SHARD, folder / SHARD, dirs_exist_ok=True)
    said = refusal(lambda: read_all(Store.open(folder)))
    assert f"{folder / SHARD} does not belong to its store's manifest" in said


@pytest.mark.parametrize("column", ["prompt", "position"])
def test_rows_of_other_places_are_refused_though_sealed(column: str, folder: Path) -> None:
    tensors = load_file(folder / STATES)
    save_file(tensors | {column: tensors[column].flip(0)}, folder / STATES)
    seal(folder / SHARD, Description.read(folder).fingerprint)
    said = refusal(lambda: read_all(Store.open(folder)))
    assert "its rows are of other prompts or positions" in said


@pytest.mark.parametrize("name", ["config.json", "readout.safetensors"])
def test_a_changed_model_is_refused_at_open(name: str, folder: Path) -> None:
    flip(folder / "model" / name, -3)
    expected = f"{folder / 'model' / name} cannot be read: it is not as it was written"
    assert refusal(lambda: Store.open(folder)).startswith(expected)


@pytest.mark.parametrize(
    "change",
    [
        {"positions": "last"},
        {"positions": [0, 1]},
        {"shard_size": 3, "n_prompts": 6},
        {"d_model": 8},
        {"vocab_size": 300},
        {"sites": [["resid_post", 1]]},
    ],
)
def test_a_changed_manifest_is_refused_at_open(change: dict[str, Any], folder: Path) -> None:
    rewrite(folder, lambda found: found | change)
    assert "does not belong to its store's manifest" in refusal(lambda: Store.open(folder))


def test_another_depth_in_the_manifest_is_refused_at_open(folder: Path) -> None:
    rewrite(folder, lambda found: found | {"model": found["model"] | {"n_layers": 2}})
    assert "does not belong to its store's manifest" in refusal(lambda: Store.open(folder))


@pytest.mark.parametrize("bounds", [[0, None, 0], ["a", None, None], [], [0.5, 1, 1]])
def test_a_slice_that_is_none_is_refused_at_open(bounds: list[Any], folder: Path) -> None:
    rewrite(folder, lambda found: found | {"positions": {"slice": bounds}})
    assert f"the manifest of {folder} cannot be read" in refusal(lambda: Store.open(folder))


def test_a_manifest_that_is_a_folder_is_refused(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    (folder / "manifest.json").mkdir()
    assert refusal(lambda: Store.open(folder)) == (
        f"{folder / 'manifest.json'} cannot be read: Is a directory"
    )


def rewrite(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
