"""Prompt files as a stream: names, numbered reasons, shards, and files that change."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import workbench as wb
from workbench.report.reading import Rejected, source_of, survey

GOOD = {"text": "fine"}


def jsonl(path: Path, rows: list[object]) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


def every(_: int) -> bool:
    return True


def test_shards_hold_every_prompt_once_and_in_order(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "p.jsonl", [{"text": f"text {n}"} for n in range(7)])
    source = survey(path)
    shards = list(source.shards(3, every))
    assert source.count == 7
    assert [start for start, _ in shards] == [0, 3, 6]
    assert [p.text for _, shard in shards for p in shard] == [f"text {n}" for n in range(7)]
    assert [name for _, shard in shards for name in shard.names] == list(range(7))
    assert [start for start, _ in source.shards(3, lambda start: start == 3)] == [3]


def test_names_are_those_of_the_whole_file(tmp_path: Path) -> None:
    """Where one prompt has an id, the others are called by their index as a text in any shard."""
    rows = [GOOD, GOOD, GOOD, GOOD | {"id": "last"}]
    path = jsonl(tmp_path / "p.jsonl", rows)
    names = [name for _, shard in survey(path).shards(2, every) for name in shard.names]
    assert names == wb.PromptSet.read(path).names == ["0", "1", "2", "last"]


@pytest.mark.parametrize("name", [{}, {"id": "last"}])
def test_prompts_know_their_lines_in_any_shard(tmp_path: Path, name: dict[str, str]) -> None:
    path = jsonl(tmp_path / "p.jsonl", ["nonsense", GOOD, "", GOOD, "nonsense", GOOD | name])
    source = survey(path, skip_bad=True)
    assert [shard.lines for _, shard in source.shards(2, every)] == [(2, 4), (6,)]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.csv", "text,target\na, x\nb, y\n"),
        ("p.tsv", "text\ttarget\na\t x\nb\t y\n"),
        ("p.txt", "a\n\nb\n"),
    ],
)
def test_every_kind_of_file_reads_as_a_prompt_set_does(
    tmp_path: Path, name: str, text: str
) -> None:
    path = tmp_path / name
    path.write_text(text)
    ((_, shard),) = survey(path).shards(10, every)
    assert list(shard) == list(wb.PromptSet.read(path))


BAD: list[tuple[object, str]] = [
    ('{"text": }', "not JSON"),
    ("[1]", "expected a JSON object"),
    ({"text": ""}, "empty prompt"),
    ({"id": "x"}, "no text"),
    ({"text": "x", "subject": 3}, "subject is 3"),
    ({"text": "x", "id": "a"}, "id 'a' stands in line 1 too"),
]


@pytest.mark.parametrize(("row", "reason"), BAD)
def test_a_bad_line_is_named_and_stops(tmp_path: Path, row: object, reason: str) -> None:
    path = jsonl(tmp_path / "p.jsonl", [GOOD | {"id": "a"}, row])
    with pytest.raises(wb.PromptError, match=rf"p\.jsonl, line 2: .*{reason}") as caught:
        survey(path)
    assert "\n" not in str(caught.value)


def test_bad_lines_are_left_out_where_asked(tmp_path: Path) -> None:
    rows = [GOOD | {"id": "a"}, *(row for row, _ in BAD), GOOD | {"id": "b"}]
    path = jsonl(tmp_path / "p.jsonl", rows)
    with pytest.raises(wb.PromptError, match=f"and {len(BAD) - 1} more bad lines"):
        survey(path)
    source = survey(path, skip_bad=True)
    assert [name for _, shard in source.shards(1, every) for name in shard.names] == ["a", "b"]
    assert [one.line for one in source.rejected] == list(range(2, 2 + len(BAD)))
    for (one, raw), (row, reason) in zip(source.raw(), BAD, strict=True):
        assert reason in one.reason
        assert raw == (row if isinstance(row, str) else json.dumps(row))


def test_json_that_python_does_not_read_is_left_out(tmp_path: Path) -> None:
    unread = [f'{{"text": "x", "n": {n}}}' for n in ("9" * 5000, "[" * 100_000 + "]" * 100_000)]
    path = jsonl(tmp_path / "p.jsonl", [GOOD, *unread, GOOD])
    with pytest.raises(wb.PromptError, match="line 2: not JSON that can be read .*1 more bad line"):
        survey(path)
    source = survey(path, skip_bad=True)
    assert [shard.lines for _, shard in source.shards(9, every)] == [(1, 4)]
    assert [(one.line, raw) for one, raw in source.raw()] == list(enumerate(unread, start=2))


def test_a_bad_row_of_a_table(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("text,target\na,x\nb,y,z\nc,x\n")
    source = survey(path, skip_bad=True)
    assert source.rejected == (Rejected(3, "expected 2 cells, as in the header"),)
    assert [raw for _, raw in source.raw()] == ["b,y,z"]
    assert [p.text for _, shard in source.shards(9, every) for p in shard] == ["a", "c"]


def test_an_id_that_is_another_prompts_number(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "p.jsonl", [GOOD | {"id": "1"}, GOOD])
    with pytest.raises(wb.PromptError, match="line 1: id '1' is what prompt number 1"):
        survey(path)
    fine = jsonl(tmp_path / "q.jsonl", [GOOD, GOOD | {"id": "1"}])
    assert survey(fine).count == 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_text("\n"), "holds no prompts"),
        (lambda path: path.write_text('{"text": ""}\n'), "empty prompt"),
        (lambda path: path.write_bytes(b'{"text": "\xff"}\n'), "is not UTF-8"),
        (lambda path: path.mkdir(), "no prompt file"),
    ],
)
def test_files_that_cannot_be_used(
    tmp_path: Path, make: Callable[[Path], object], message: str
) -> None:
    make(tmp_path / "p.jsonl")
    with pytest.raises(wb.PromptError, match=message):
        survey(tmp_path / "p.jsonl")


def test_all_lines_bad_is_no_report(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "p.jsonl", [{"text": ""}])
    with pytest.raises(wb.PromptError, match="holds no prompts"):
        survey(path, skip_bad=True)


def test_a_file_that_changes_meanwhile_is_refused(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "p.jsonl", [GOOD, GOOD, GOOD])
    shards = survey(path).shards(1, every)
    next(shards)
    jsonl(path, [GOOD, {"text": "other"}, GOOD, GOOD])
    with pytest.raises(wb.PromptError, match="has changed since the run began"):
        next(shards)


def test_the_hash_is_that_of_the_prompts(tmp_path: Path) -> None:
    one, two = (
        survey(jsonl(tmp_path / "a.jsonl", [GOOD])),
        survey(jsonl(tmp_path / "b.jsonl", [GOOD])),
    )
    other = survey(jsonl(tmp_path / "c.jsonl", [{"text": "other"}]))
    assert one.hash == two.hash != other.hash
    given = [
        source_of(texts, skip_bad=False).hash for texts in (["a", "b"], ["a", "b"], ["a", "c"])
    ]
    assert given[0] == given[1] != given[2]


def test_prompts_in_memory_keep_their_names() -> None:
    prompts = wb.PromptSet.of(["a", wb.Prompt("b", id="x"), "c"])
    names = [
        n for _, shard in source_of(prompts, skip_bad=False).shards(2, every) for n in shard.names
    ]
    assert names == ["0", "x", "2"]
