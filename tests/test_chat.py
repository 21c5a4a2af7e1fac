"""Chats: the tokens of the template alone, places of roles, and every way in which it can fail."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

import workbench as wb
from lenses import LogitLens
from tests.tiny import EOT, hf_model, tokenizer
from workbench.jobs.plain import canonical, plain_prompts, prompts_of
from workbench.messages import read_messages
from workbench.models.positions import resolve_positions
from workbench.report import report, survey

CHATML = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
WITH_BOS = "{{ bos_token }}" + CHATML
ASKED = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": " user? "},
]
ANSWERED = [*ASKED, {"role": "assistant", "content": "Yes "}]
AGAIN = [*ANSWERED, {"role": "user", "content": "Really user?"}]
WITH_CALLS = (
    "{% for m in messages %}<{{ m.role }}>"
    "{% if m.content %}{{ m.content }}{% else %}nothing{% endif %}"
    "{% for call in m.tool_calls %}[{{ call.function.name }}]{% endfor %}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
CALLS = [{"type": "function", "function": {"name": "clock", "arguments": {}}}]
CALLING = [
    {"role": "developer", "content": "Use tools."},
    {"role": "user", "content": "What time?"},
    {"role": "assistant", "content": None, "tool_calls": CALLS},
]
CALLED = [*CALLING, {"role": "tool", "content": "18 h"}]


def chatting(template: str | None = WITH_BOS, *, bos: bool = True) -> wb.TorchModel:
    """A tiny Llama whose tokenizer puts a BOS before a text and has this chat template."""
    own = deepcopy(tokenizer(bos=bos))
    own.chat_template = template
    hf = hf_model("llama")
    hf.config.update({"max_position_embeddings": 256})  # rotary angles know no end
    return wb.load(hf, own)


@pytest.fixture(scope="module")
def model() -> wb.TorchModel:
    return chatting()


def said(model: wb.TorchModel, messages: list[dict[str, Any]], role: str) -> str:
    """The text of the tokens at a role's positions."""
    encoded = model.encode(wb.Prompt(messages=messages))
    places = resolve_positions(role, encoded)
    return "".join(model.tokens.text(encoded.ids[i]) for i in places)


@pytest.mark.parametrize("template", [WITH_BOS, CHATML])
@pytest.mark.parametrize("messages", [ASKED, AGAIN])
def test_tokens_are_those_of_the_template(template: str, messages: list[dict[str, str]]) -> None:
    chatty = chatting(template)
    expected = chatty.tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_dict=False
    )
    ids = chatty.encode(wb.Prompt(messages=messages)).ids
    assert list(ids) == expected
    assert ids.count(256) == (template == WITH_BOS)  # never a second BOS, none of our own


def test_an_assistants_turn_is_left_open(model: wb.TorchModel) -> None:
    encoded = model.encode(wb.Prompt(messages=ANSWERED))
    assert encoded.text == EOT + "<system>Be brief.</s>\n<user>user?</s>\n<assistant>Yes"
    assert model.tokens.text(encoded.ids[-1]) == "s"


def test_places_of_roles(model: wb.TorchModel) -> None:
    assert said(model, AGAIN, "system") == "Be brief."
    assert said(model, AGAIN, "user") == "user?Really user?"  # not the template's own <user>
    assert said(model, AGAIN, "assistant") == "Yes"
    assert said(model, AGAIN, "generation_prompt") == "<assistant>"
    assert said(model, ANSWERED, "assistant") == "Yes"


SILENT = [
    {"content": None, "tool_calls": CALLS},
    {"tool_calls": CALLS},
    {"content": "", "tool_calls": CALLS},
]


@pytest.mark.parametrize("turn", SILENT)
@pytest.mark.parametrize("rest", [[], CALLED[3:]])
def test_a_turn_of_tool_calls_needs_no_text(turn: dict[str, Any], rest: list[Any]) -> None:
    chatty = chatting(WITH_CALLS)
    messages = [*CALLING[:2], {"role": "assistant", **turn}, *rest]
    expected = chatty.tokenizer.apply_chat_template(
        messages, add_generation_prompt=bool(rest), return_dict=False
    )
    assert list(chatty.encode(wb.Prompt(messages=messages)).ids) == expected
    assert said(chatty, messages, "developer") == "Use tools."
    assert said(chatty, messages, "user") == "What time?"
    with pytest.raises(wb.PromptError, match="has no assistant"):
        said(chatty, messages, "assistant")


def test_tools_have_places() -> None:
    chatty = chatting(WITH_CALLS)
    assert said(chatty, CALLED, "tool") == "18 h"
    answered = [*CALLED, {"role": "assistant", "content": "Six."}]
    assert said(chatty, answered, "assistant") == "Six."


def test_calls_behind_a_last_text_are_not_cut_off() -> None:
    last = {"role": "assistant", "content": "Wait.", "tool_calls": CALLS}
    text = chatting(WITH_CALLS).encode(wb.Prompt(messages=[*CALLING[:2], last])).text
    assert text.endswith("<assistant>Wait.[clock]</s>\n")


def test_a_chat_of_tools_is_shown_with_its_calls() -> None:
    assert wb.Prompt(messages=CALLED).shown.splitlines()[2:] == [
        f"assistant: {CALLS}",
        "tool: 18 h",
    ]


@pytest.mark.parametrize("messages", [CALLED, [*ASKED, {"role": "ipython", "content": "x"}]])
def test_every_role_that_a_refusal_names_is_read(messages: list[dict[str, Any]]) -> None:
    chatty = chatting(WITH_CALLS)
    with pytest.raises(wb.PromptError, match="has no assistant") as caught:
        said(chatty, messages, "assistant")
    named = str(caught.value).split("expected one of ")[1].split(", ")
    assert set(named) == {"user", "generation_prompt"} | (
        {"developer", "tool"} if messages == CALLED else {"system"}
    )
    assert all(said(chatty, messages, role) for role in named)


def test_a_subject_inside_a_message(model: wb.TorchModel) -> None:
    encoded = model.encode(wb.Prompt(messages=ASKED, subject="brief"))
    first, last = encoded.subject
    assert "".join(model.tokens.text(i) for i in encoded.ids[first : last + 1]) == "brief"


def test_an_instrument_reads_roles(model: wb.TorchModel) -> None:
    result = LogitLens(positions="assistant")(model, wb.Prompt(messages=AGAIN))
    assert "".join(result.data["token"].values.tolist()) == "Yes"
    (made_of,) = result.provenance["prompts"]
    assert made_of["text"] == model.encode(wb.Prompt(messages=AGAIN)).text
    assert made_of["ids"][0] == 256


def test_the_template_is_part_of_what_a_result_says(model: wb.TorchModel) -> None:
    digits = model.provenance()["chat_template"]
    assert len(digits) == 16
    assert chatting(CHATML).provenance()["chat_template"] != digits
    assert chatting(None).provenance()["chat_template"] is None


CENSORED = WITH_BOS.replace("m.content | trim", "m.content | trim | replace('Yes', 'No')")
LAST_ALONE = WITH_BOS.replace(
    "m.content | trim", "(m.content | trim if loop.last or m.role != 'assistant' else '')"
)
LOOKING = WITH_BOS.replace("m.content | trim", "m.content[:5] | trim")
REFUSING = "{{ raise_exception('System role not supported') }}"


def test_a_message_that_the_template_drops_has_no_places() -> None:
    chatty = chatting(LAST_ALONE)
    assert said(chatty, AGAIN, "user") == "user?Really user?"
    with pytest.raises(wb.PromptError, match="has no assistant that its template writes as it st"):
        said(chatty, AGAIN, "assistant")


def test_a_template_that_cuts_messages_has_no_roles_but_tokens() -> None:
    chatty = chatting(LOOKING)
    assert "<user>Reall</s>" in chatty.encode(wb.Prompt(messages=AGAIN)).text
    with pytest.raises(wb.PromptError, match="has no user that its template writes as it stands"):
        said(chatty, AGAIN, "user")


def test_a_replacement_inside_a_message_keeps_its_places() -> None:
    assert said(chatting(CENSORED), AGAIN, "assistant") == "No"


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (None, "the tokenizer has no chat template: give the prompt as text"),
        (REFUSING, "the chat template refuses the messages: System role not supported"),
        ("{{ ''.__class__.__mro__ }}", "refuses the messages: access to attribute '__class__'"),
        ("{% for %}", "refuses the messages: "),
        ("{{ messages[7].content }}", "refuses the messages: list object has no element 7"),
    ],
)
def test_templates_that_fail_are_one_line(template: str | None, reason: str) -> None:
    with pytest.raises(wb.PromptError, match=reason) as caught:
        chatting(template).encode(wb.Prompt(messages=ASKED))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("role", "messages", "reason"),
    [
        ("assistant", ASKED, "has no assistant .*expected one of system, user, generation_prompt"),
        ("generation_prompt", ANSWERED, "has no generation_prompt"),
    ],
)
def test_roles_without_a_turn(
    model: wb.TorchModel, role: str, messages: list[dict[str, str]], reason: str
) -> None:
    with pytest.raises(wb.PromptError, match=reason):
        said(model, messages, role)


def test_a_text_has_no_roles(model: wb.TorchModel) -> None:
    with pytest.raises(wb.PromptError, match="prompt 'abc' is no chat: give it as messages"):
        model.capture("abc", ["resid_post"], "user")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"messages": "hello"}, "messages is 'hello': expected a list"),
        ({"messages": [3]}, "message 1 is 3: expected an object"),
        ({"messages": [{"role": "user"}]}, "message 1 has no content: expected a text"),
        ({"messages": [{"role": "a", "content": None}]}, "message 1 has no content: expected a t"),
        ({"messages": [{"role": "a", "tool_calls": []}]}, "message 1 has no content: expected a t"),
        (
            {"messages": [{"role": "a", "content": 3, "tool_calls": CALLS}]},
            "message 1 has no content: expected a text",
        ),
        ({"messages": [{"role": "", "content": "a"}]}, "message 1 has an empty role"),
        ({"messages": ASKED, "text": "a"}, "a prompt has text and messages: expected one"),
        ({"messages": []}, "empty prompt"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "text holds half of a character"),
    ],
)
def test_bad_messages(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(wb.PromptError, match=reason):
        wb.Prompt.from_fields(fields)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "chats.jsonl"
    lines = [{"messages": AGAIN, "id": "a", "target": " "}, {"text": "plain"}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def test_files_jobs_and_stores_keep_messages(
    model: wb.TorchModel, file: Path, tmp_path: Path
) -> None:
    chats = wb.PromptSet.read(file)
    assert chats[0].messages == tuple(AGAIN)
    assert prompts_of(json.loads(canonical(plain_prompts(chats)))) == chats
    store = wb.capture(model, chats, sites=["resid_post"], positions="all", out=tmp_path / "acts")
    again = wb.Store.open(tmp_path / "acts")
    assert again.prompts.prompts == store.prompts.prompts
    chat = wb.PromptSet.of(again.prompts[0])
    live = model.capture(chat, ["resid_post"], "user")
    stored = again.capture(chat, ["resid_post"], "user")
    assert torch.equal(live["resid_post", 2], stored["resid_post", 2])


def test_jobs_and_stores_keep_tool_calls(tmp_path: Path) -> None:
    chatty = chatting(WITH_CALLS)
    chat = wb.PromptSet.of(wb.Prompt(messages=CALLED))
    assert prompts_of(json.loads(canonical(plain_prompts(chat)))) == chat
    wb.capture(chatty, chat, sites=["resid_post"], positions="tool", out=tmp_path / "acts")
    stored = wb.Store.open(tmp_path / "acts", device="cpu").capture(chat, ["resid_post"], "tool")
    live = chatty.capture(chat, ["resid_post"], "tool")
    assert torch.equal(live["resid_post", 2], stored["resid_post", 2])


def test_a_report_shows_the_rendered_text(model: wb.TorchModel, file: Path, tmp_path: Path) -> None:
    report(model, survey(file), [LogitLens()], tmp_path / "out")
    (table,) = (tmp_path / "out").rglob("prompts.parquet")
    texts = pl.read_parquet(table)["text"].to_list()
    assert texts == [model.encode(wb.Prompt(messages=AGAIN)).text, "plain"]


def test_a_chat_file(tmp_path: Path) -> None:
    path = tmp_path / "chat.json"
    path.write_text(json.dumps(ASKED), encoding="utf-8")
    assert read_messages(path) == tuple(ASKED)
    for text, reason in (
        ("{", "is not JSON"),
        ("{}", "messages is {}: expected a list"),
        ("[1]", "message 1 is 1"),
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(wb.PromptError, match=reason):
            read_messages(path)
    with pytest.raises(wb.PromptError, match="no chat file"):
        read_messages(tmp_path / "none.json")
