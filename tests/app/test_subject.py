"""The characters that tokens stand for, against a tokenizer's own offsets."""

from __future__ import annotations

import pytest

import workbench as wb
from app.panels.subject import row, spans
from app.state import Asked

TEXTS = [
    "The Eiffel Tower is located in the city of",
    "the the the  two spaces\nand a line",
    "Zürich and 日本 stay apart from Tokyo",
]


@pytest.mark.parametrize("text", TEXTS)
def test_tokens_are_found_where_the_tokenizer_has_them(text: str) -> None:
    encoded = wb.load().encode(wb.Prompt(text))
    tokens = {i: wb.load().tokens.text(token) for i, token in enumerate(encoded.ids)}
    found = spans(text, tokens)
    for position, (start, end) in found.items():
        left, right = encoded.spans[position]
        assert right == end
        assert text[left:start].strip(" ") == ""  # the space before a word is no part of it
    parts = [i for i, token in tokens.items() if "<0x" in token]
    assert set(tokens) - set(found) == set(parts)  # bytes that are no character by themselves


def test_a_subject_chosen_by_tokens_is_the_models_own() -> None:
    text = TEXTS[0]
    encoded = wb.load().encode(wb.Prompt(text))
    tokens = {i: wb.load().tokens.text(token) for i, token in enumerate(encoded.ids)}
    found = row(Asked("atlas", text, subject="4:16"), tokens)["tokens"]
    start, end = found[1][2], found[5][3]
    assert (start, end) == (4, 16)
    assert wb.load().encode(wb.Prompt(text, subject=(start, end))).subject == (1, 5)


def test_special_tokens_have_no_characters() -> None:
    tokens = {0: "<s>", 1: "Rome", 2: " <s>", 3: "<s>"}
    assert spans("Rome <s>", tokens) == {1: (0, 4), 2: (5, 8)}
