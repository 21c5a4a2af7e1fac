"""Which models `workbench app` offers."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.launch import offered
from workbench import ModelError
from workbench.atlas import MODELS


def folder(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text("{}")
    return path


def test_named_models_come_first_then_those_of_the_root_then_the_bundled(tmp_path: Path) -> None:
    mine = folder(tmp_path / "else" / "mine")
    folder(tmp_path / "root" / "b")
    folder(tmp_path / "root" / "a")
    specs = offered([str(mine), "gpt2"], tmp_path / "root", dtype="bfloat16")
    assert list(specs) == ["mine", "gpt2", "a", "b", *MODELS]
    assert specs["mine"].source == str(mine)
    assert specs["a"].source == str(tmp_path / "root" / "a")
    assert {spec.dtype for spec in specs.values()} == {"bfloat16"}
    assert not any(spec.trust_remote_code for spec in specs.values())


def test_a_link_out_of_the_root_is_refused(tmp_path: Path) -> None:
    folder(tmp_path / "secret")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "inside").symlink_to(tmp_path / "secret")
    with pytest.raises(ModelError, match="leads out of --model-root") as caught:
        offered([], tmp_path / "root")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_a_link_out_of_the_root_is_refused(tmp_path: Path) -> None:
    folder(tmp_path / "secret")
    (tmp_path / "root" / "inside").mkdir(parents=True)
    (tmp_path / "root" / "inside" / "config.json").symlink_to(tmp_path / "secret" / "config.json")
    with pytest.raises(ModelError, match=r"config\.json leads out of --model-root"):
        offered([], tmp_path / "root")


def test_a_link_within_the_root_is_fine(tmp_path: Path) -> None:
    folder(tmp_path / "root" / "v1")
    (tmp_path / "root" / "latest").symlink_to(tmp_path / "root" / "v1")
    assert list(offered([], tmp_path / "root")) == ["latest", "v1", *MODELS]


def test_two_models_of_one_name_and_a_root_that_is_none_are_refused(tmp_path: Path) -> None:
    twins = [str(folder(tmp_path / name / "twin")) for name in ("a", "b")]
    with pytest.raises(ModelError, match="have the same name"):
        offered(twins, None)
    with pytest.raises(ModelError, match="is no folder"):
        offered([], tmp_path / "nowhere")
