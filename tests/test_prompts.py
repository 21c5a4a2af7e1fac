"""Prompts, prompt files, tokens and targets: what is read, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import workbench as wb
from tests.tiny import EOT, hf_model, model, tokenizer
from workbench.models.positions import resolve_positions
from workbench.models.tokens import Tokens
from workbench.prompts import Prompt, PromptError, PromptSet, lines


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_reads_jsonl_csv_and_text_alike(tmp_path: Path) -> None:
    jsonl = write(
        tmp_path / "p.jsonl",
        '{"text": "a b", "id": "x", "target": " c", "subject": [0, 1], "relation": "r"}\n\n{"text": "d"}\n',
    )
    csv = write(tmp_path / "p.csv", 'text,id,target\n"a b",x, c\nd,,\n')
    text = write(tmp_path / "p.txt", "a b\nd\n")
    one = wb.PromptSet.read(jsonl)
    assert one[0] == wb.Prompt("a b", id="x", target=" c", subject=(0, 1), extra={"relation": "r"})
    assert [p.text for p in one] == [p.text for p in wb.PromptSet.read(csv)] == ["a b", "d"]
    assert wb.PromptSet.read(csv)[0].target == " c"
    assert [p.text for p in wb.PromptSet.read(text)] == ["a b", "d"]
    assert one.names == ["x", "1"]
    assert wb.PromptSet.read(text).names == [0, 1]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"text": "a"', "line 2: not JSON .*column 13"),
        ('["a"]', "line 2: expected a JSON object"),
        ('{"txt": "a"}', "line 2: no text"),
        ('{"text": ""}', "line 2: empty prompt"),
        ('{"text": "a", "target": 1.5}', "line 2: target is 1.5"),
        ('{"text": "a", "subject": [1]}', r"line 2: subject is \[1\]"),
        ('{"text": "a", "subject": {"a": 1}}', "line 2: subject is {'a': 1}"),
        ('{"text": "a", "id": NaN}', "line 2: id is nan: expected a string"),
        ('{"text": "a", "target": true}', "line 2: target is True"),
        ('{"text": "\\ud800"}', "line 2: text holds half of a character"),
        ('{"text": "a", "id": "b\\u0000"}', "line 2: id 'b.x00' holds a NUL"),
    ],
)
def test_a_bad_line_is_named_by_number_and_reason(tmp_path: Path, line: str, reason: str) -> None:
    path = write(tmp_path / "bad.jsonl", '{"text": "fine"}\n' + line + "\n")
    with pytest.raises(wb.PromptError, match=reason) as caught:
        wb.PromptSet.read(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        pytest.param("9" * 5000, "a whole number has too many digits", id="digits"),
        pytest.param("[" * 100_000 + "]" * 100_000, "nested too deeply", id="depth"),
    ],
)
def test_json_that_python_does_not_read(tmp_path: Path, value: str, reason: str) -> None:
    path = write(tmp_path / "bad.jsonl", f'{{"text": "a"}}\n{{"text": "b", "n": {value}}}\n')
    with pytest.raises(wb.PromptError) as caught:
        wb.PromptSet.read(path)
    assert str(caught.value) == f"{path}, line 2: not JSON that can be read ({reason})"


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ('text,id\n"a, b\nc,2\n', "after line 1: unexpected end of data"),
        ("text,id\na,1,more\n", "line 2: expected 2 cells"),
        ("text,id\na\n", "line 2: expected 2 cells"),
    ],
)
def test_a_damaged_table_is_refused(tmp_path: Path, table: str, reason: str) -> None:
    with pytest.raises(wb.PromptError, match=reason):
        wb.PromptSet.read(write(tmp_path / "bad.csv", table))


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    assert wb.PromptSet.read(write(tmp_path / "P.JSONL", '{"text": "a"}'))[0].text == "a"
    with pytest.raises(wb.PromptError, match="unknown kind of prompt file"):
        wb.PromptSet.read(write(tmp_path / "p.jsonl.bak", '{"text": "a"}'))
    (tmp_path / "bytes.txt").write_bytes(b"a\xff")
    with pytest.raises(wb.PromptError, match=r"bytes.txt is not UTF-8 text \(byte 1\)"):
        wb.PromptSet.read(tmp_path / "bytes.txt")


def test_other_bad_prompts(tmp_path: Path) -> None:
    with pytest.raises(wb.PromptError, match="empty prompt"):
        wb.Prompt("")
    with pytest.raises(wb.PromptError, match="no prompts"):
        wb.PromptSet.of([])
    with pytest.raises(wb.PromptError, match="'a' is given to two prompts"):
        wb.PromptSet.of([wb.Prompt("x", id="a"), wb.Prompt("y", id="a")])
    with pytest.raises(wb.PromptError, match="'0' is given to two prompts"):
        wb.PromptSet.of([wb.Prompt("x"), wb.Prompt("y", id="0")])
    with pytest.raises(wb.PromptError, match="no prompt file"):
        wb.PromptSet.read(tmp_path / "none.jsonl")
    with pytest.raises(wb.PromptError, match="holds no prompts"):
        wb.PromptSet.read(write(tmp_path / "empty.txt", "\n"))


def test_a_prompt_longer_than_the_context_is_refused_not_cut() -> None:
    assert len(model("gpt2").encode(wb.Prompt("x" * 64))) == 64
    with pytest.raises(wb.PromptError, match="has 65 tokens: the model's context is 64"):
        model("gpt2").encode(wb.Prompt("x" * 65))


def test_bos_is_added_once() -> None:
    encode = model("llama").encode
    assert encode(wb.Prompt("ab")).ids == (256, 64, 65)
    assert encode(wb.Prompt(EOT + "ab")).ids == (256, 64, 65)
    assert model("gpt2").encode(wb.Prompt("ab")).ids == (64, 65)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("ab", r"target 'ab' is 2 tokens \('a' \+ 'b'\): expected exactly one"),
        (257, r"target id 257 is outside the vocabulary: expected 0..256"),
        (-1, "target id -1 is outside"),
        ("", "target '' is no token"),
    ],
)
def test_bad_targets(target: str | int, message: str) -> None:
    with pytest.raises(wb.TargetError, match=message):
        model("gpt2").encode(wb.Prompt("x", target=target))


def sentencepiece_like() -> transformers.PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    vocabulary = {"<unk>": 0, "\u2581": 1, "\u2581Paris": 2, "Paris": 3, "\u2581is": 4}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    raw.decoder = decoders.Metaspace(prepend_scheme="always")
    return transformers.PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>")


def test_word_start_tokens_keep_their_space_and_unknown_ones_are_refused() -> None:
    tokens = Tokens(sentencepiece_like(), n_rows=6)
    assert tokens.text(2) == " Paris"
    assert tokens.text(3) == "Paris"
    assert tokens.text(5) == "<id 5>"
    assert tokens.token_id("Paris") == 2
    with pytest.raises(wb.TargetError, match="'Rome' is no token of the vocabulary"):
        tokens.token_id("Rome")


def test_a_split_off_word_start_is_dropped() -> None:
    """Llama's SentencePiece encodes ' Paris' as a bare word start and the word."""

    class Splitting:
        unk_token_id, unk_token = 0, "<unk>"

        def __call__(self, text: str, **_: object) -> dict[str, list[int]]:
            return {"input_ids": [1, 2]}

        def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
            return ["\u2581", "\u2581Paris"]

    assert Tokens(Splitting(), n_rows=6).token_id(" Paris") == 2


def test_bytes_that_are_no_character_are_spelled_out() -> None:
    tokens = model("gpt2").tokens
    e_acute = tokens.tokenizer("é")["input_ids"]
    assert [tokens.text(i) for i in e_acute] == ["<0xC3>", "<0xA9>"]
    assert tokens.text(tokens.tokenizer("\0")["input_ids"][0]) == "<0x00>"


@pytest.mark.parametrize(
    ("text", "subject", "word"),
    [
        ("Ask Joanna.", "anna", "Joanna"),
        ("Ask Joanna.", "Jo", "Joanna"),
        ("Ask Joanna.", (5, 8), "Joanna"),
        ("Ask Joanna.", "Joanna", None),
        ("Ask Joanna.", " Joanna.", None),
        ("Ask Joanna's aunt.", "Joanna", None),
        ("Sankt-Peterburg", "Sankt", None),
        ("\u6771\u4eac\u306f", "\u6771\u4eac", None),  # a script without spaces
    ],
)
def test_a_subject_that_ends_inside_a_word(text: str, subject: Any, word: str | None) -> None:
    assert model("gpt2").encode(wb.Prompt(text, subject=subject)).word_of_subject == word


def test_subject_positions() -> None:
    encoded = model("llama").encode(wb.Prompt("a bc d", subject="bc"))
    expected = {
        "all": [0, 1, 2, 3, 4, 5, 6],
        "last": [6],
        "subject": [3, 4],
        "first_subject": [3],
        "last_subject": [4],
        "after_subject": [5],
    }
    for role, positions in expected.items():
        assert resolve_positions(role, encoded) == positions
    assert resolve_positions([-1, 0, 0], encoded) == [0, 6]
    assert resolve_positions(np.array([2, 0]), encoded) == [0, 2]
    assert resolve_positions(torch.tensor([2, 0, 2]), encoded) == [0, 2]


@pytest.mark.parametrize(
    ("subject", "message"),
    [
        ("z", "occurs 0 times"),
        ("a", "occurs 2 times"),
        ("bb", "occurs 2 times"),
        ((-3, 2), "lies outside the text's 7 characters"),
        ((2, 2), "lies outside"),
        (None, "has no subject"),
    ],
)
def test_subjects_that_cannot_be_placed(subject: Any, message: str) -> None:
    encoded = model("gpt2").encode(wb.Prompt("a bbb a", subject=subject))
    with pytest.raises(wb.PromptError, match=message):
        resolve_positions("subject", encoded)


def test_positions_outside_the_prompt_or_unknown() -> None:
    encoded = model("gpt2").encode(wb.Prompt("abc"))
    with pytest.raises(
        wb.SettingError, match="position 3 is outside prompt 'abc': it has 3 tokens"
    ):
        resolve_positions(3, encoded)
    with pytest.raises(wb.SettingError, match="unknown positions 'lats'"):
        resolve_positions("lats", encoded)


def test_a_token_without_an_embedding_is_refused() -> None:
    tokens = Tokens(
        tokenizer(), n_rows=hf_model("gpt2").get_input_embeddings().num_embeddings - 100
    )
    with pytest.raises(wb.PromptError, match="token id 188 is outside the model's 157 embeddings"):
        tokens.encode(wb.Prompt("\0"))


def test_a_part_of_a_set_keeps_the_names_of_the_whole() -> None:
    plain = PromptSet.of(["a", "b", "c"]).subset([2, 0])
    assert (plain.names, [p.text for p in plain]) == ([2, 0], ["c", "a"])
    assert plain.subset([0]).names == [2]
    mixed = PromptSet.of([Prompt("a", id="x"), "b", "c"])
    assert mixed.subset([2]).names == ["2"]
    assert mixed.subset([0, 1]).names == ["x", "1"]


def test_prompts_know_their_lines(tmp_path: Path) -> None:
    found = PromptSet.read(write(tmp_path / "p.txt", "a\n\nb\nc\n"))
    assert found.lines == (1, 3, 4)
    assert found.subset([2, 1]).lines == (4, 3)
    assert PromptSet.of(["a"]).subset([0]).lines is None


def test_lines_go_on_after_a_bad_one(tmp_path: Path) -> None:
    file = tmp_path / "set.jsonl"
    file.write_text('{"text": "a"}\n{"text": \n\n[1]\n{"text": "b"}\n', encoding="utf-8")
    found = list(lines(file))
    assert [number for number, _ in found] == [1, 2, 4, 5]
    assert [type(line) for _, line in found] == [dict, PromptError, PromptError, dict]
    assert "not JSON" in str(found[1][1])
    table = tmp_path / "set.csv"
    table.write_text("text,target\na,b\nc\nd,e\n", encoding="utf-8")
    assert [isinstance(line, PromptError) for _, line in lines(table)] == [False, True, False]


@pytest.mark.parametrize("subject", [[2, 5], (2, 5), [np.int64(2), np.int64(5)]])
def test_a_span_is_a_tuple_however_it_is_given(subject: Any) -> None:
    assert Prompt("abcdef", subject=subject).subject == (2, 5)


def test_targets_are_texts_or_ids_of_any_library() -> None:
    assert Prompt("a", target=np.int64(7), foil=np.array(8)) == Prompt("a", target=7, foil=8)
    assert type(Prompt("a", target=np.int64(7)).target) is int
    for strange in (True, 3.5, ["b"]):
        with pytest.raises(PromptError, match="foil is .*: expected a string or a token id"):
            Prompt("a", foil=strange)  # type: ignore[arg-type]
