from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from workbench.atlas.measure import Loaded, load
from workbench.atlas.recipe import RECIPES
from workbench.atlas.tokenizer import train_tokenizer
from workbench.atlas.train import main, rate_share, train


@pytest.mark.parametrize("name", ["atlas", "atlas-bag"])
def test_three_steps_come_out_the_same_bit_for_bit(name: str, tmp_path: Path) -> None:
    recipe = replace(RECIPES[name], steps=3, checkpoints=(1,))
    first = train(recipe, tmp_path / "a").state_dict()
    second = train(recipe, tmp_path / "b").state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    file = "model.safetensors"
    assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_training_writes_a_folder_that_loads_and_its_checkpoints(tmp_path: Path) -> None:
    recipe = replace(RECIPES["atlas"], steps=2, checkpoints=(0, 1))
    trained = train(recipe, tmp_path)
    loaded = load(tmp_path)
    ids = loaded.ids("The capital of France is")[None]
    with torch.no_grad():
        assert torch.allclose(trained(ids).logits, loaded.model(ids).logits, atol=0.05)
    saved = [load_file(path) for path in sorted((tmp_path / "checkpoints").iterdir())]
    assert len(saved) == 2
    assert saved[0].keys() == saved[1].keys() == load_file(tmp_path / "model.safetensors").keys()
    key = "transformer.wte.weight"
    assert not torch.equal(saved[0][key], saved[1][key])


def test_command_line(tmp_path: Path) -> None:
    assert main(["atlas-bag", "--out", str(tmp_path), "--steps", "1"]) == 0
    assert (tmp_path / "model.safetensors").is_file()


def test_tokenizer_comes_out_the_same(atlas: Loaded) -> None:
    again = train_tokenizer(RECIPES["atlas"].context)
    assert again.get_vocab() == atlas.tokenizer.get_vocab()


def test_learning_rate_rises_then_falls() -> None:
    recipe = RECIPES["atlas"]
    rates = [rate_share(recipe, step) for step in range(recipe.steps)]
    assert max(rates) == pytest.approx(1)
    assert rates.index(max(rates)) in (recipe.warmup - 1, recipe.warmup)
    assert rates[-1] == pytest.approx(recipe.last_share, rel=0.01)
