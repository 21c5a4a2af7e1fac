import json

import pytest

from workbench.atlas import MODELS, PROMPTS, model_path, prompts_path
from workbench.atlas.measure import Loaded
from workbench.atlas.prompts import SETS, read_prompts


@pytest.mark.parametrize("name", PROMPTS)
def test_prompt_files_are_the_ones_the_code_writes(name: str) -> None:
    assert read_prompts(name) == SETS[name]()


@pytest.mark.parametrize("name", PROMPTS)
def test_targets_and_foils_are_one_token_and_differ(name: str, atlas: Loaded) -> None:
    for prompt in read_prompts(name):
        assert prompt["target"].startswith(" ")
        assert atlas.token(prompt["target"]) != atlas.token(prompt["foil"])


@pytest.mark.parametrize("name", PROMPTS)
def test_ids_and_texts_are_unique(name: str) -> None:
    prompts = read_prompts(name)
    assert len({p["id"] for p in prompts}) == len({p["text"] for p in prompts}) == len(prompts)


@pytest.mark.parametrize("name", ["facts", "classics"])
def test_the_subject_stands_once_in_its_prompt(name: str) -> None:
    for prompt in read_prompts(name):
        assert prompt["text"].count(prompt["subject"]) == 1
        assert prompt["group"] == prompt["subject"]


def test_the_first_classic_is_the_tower() -> None:
    first = json.loads(prompts_path("classics").read_text(encoding="utf-8").splitlines()[0])
    assert first["text"] == "The Eiffel Tower is located in the city of"
    assert first["target"] == " Paris"


def test_every_name_has_its_files() -> None:
    for name in MODELS:
        files = {path.name for path in model_path(name).iterdir()}
        assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= files
    assert all(prompts_path(name).is_file() for name in PROMPTS)


def test_unknown_names_raise_and_name_the_known() -> None:
    with pytest.raises(ValueError, match=r"'atlass'; known: atlas, atlas-bag$"):
        model_path("atlass")
    with pytest.raises(ValueError, match="known: facts, "):
        prompts_path("fact")
