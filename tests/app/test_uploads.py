"""What is taken of a file that a person uploads."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from app import uploads
from app.uploads import bundled, uploaded
from workbench import PromptError, PromptSet
from workbench.atlas import PROMPTS, prompts_path


def url(content: bytes) -> str:
    return "data:text/plain;base64," + base64.b64encode(content).decode()


def test_a_file_becomes_prompts_by_its_suffix() -> None:
    assert [p.text for p in uploaded("a.txt", url(b"one\nzwei\n"))] == ["one", "zwei"]
    assert uploaded("b.CSV", url(b"text,target\nA, x\n"))[0].target == " x"


def test_nothing_is_written_under_the_files_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    assert len(uploaded("../../escaped.txt", url(b"one"))) == 1
    assert [path.name for path in tmp_path.rglob("*")] == ["temporary"]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.jsonl", url(b'{"text": "x"}\nnot json\n'), r"^a\.jsonl, line 2: not JSON"),
        ("a.pkl", url(b"x"), r"unknown kind of prompt file a\.pkl: expected \.jsonl"),
        ("a.txt", "data:;base64,???", "did not arrive whole"),
    ],
)
def test_a_bad_file_is_named_in_one_line(name: str, content: str, says: str) -> None:
    with pytest.raises(PromptError, match=says) as caught:
        uploaded(name, content)
    assert "\n" not in str(caught.value)


def test_a_large_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "LARGEST", 3)
    assert len(uploaded("a.txt", url(b"one"))) == 1
    with pytest.raises(PromptError, match=r"a\.txt has 4 bytes: expected at most 3"):
        uploaded("a.txt", url(b"four"))


@pytest.mark.parametrize("name", PROMPTS)
def test_every_bundled_set_can_be_read(name: str) -> None:
    assert bundled(name) == PromptSet.read(prompts_path(name))
