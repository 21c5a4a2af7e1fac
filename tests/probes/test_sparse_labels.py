"""Labels: what a line says becomes examples of tokens, spans and prompts; a missing one becomes none."""

import json
from pathlib import Path

import pytest

import workbench as wb
from probes import SparseProbe
from probes.sparse.labels import Example, Labeller, called, labels_of
from probes.sparse.makers import MADE, atlas_facts, compounds, plurals, python_code, tenses
from probes.sparse.predicates import PREDICATES, rule_of
from tests.tiny import model

TEXT = "The EU pays 42 euro"
SPANS = [
    {"start": 4, "end": 6, "feature": "body"},
    {"start": 12, "end": 14, "feature": "body", "value": 0},
]


def found(prompt: wb.Prompt, family: str = "gpt2", **settings: object) -> list[Example]:
    hooked = model(family)
    return Labeller(**settings).examples(hooked.encode(prompt), hooked.tokens, "line 7")  # type: ignore[arg-type]


def test_a_prompts_labels_at_its_last_token_and_at_every_one() -> None:
    """Llama's tiny tokenizer opens with a BOS, which is no example."""
    prompt = wb.Prompt("abc", labels={"x": 1, "y": 0, "z": None})
    assert found(prompt) == [Example("x", (2,), True), Example("y", (2,), False)]
    assert found(prompt, "llama", features=["y"], level="all") == [
        Example("y", (position,), False) for position in (1, 2, 3)
    ]


@pytest.mark.parametrize(
    ("pool", "positions"), [("last", (5,)), ("first", (4,)), ("mean", (4, 5)), ("max", (4, 5))]
)
def test_spans_are_pooled_as_asked(pool: str, positions: tuple[int, ...]) -> None:
    prompt = wb.Prompt(TEXT, extra={"spans": SPANS}, labels={"x": 1})
    first, second = found(prompt, level="span", pool=pool)
    assert first == Example("body", positions, True)
    assert second.value is False


def test_at_each_token_a_span_says_more_than_its_prompt() -> None:
    """Without a prompt's label, tokens outside of spans are no negatives."""
    alone = found(wb.Prompt(TEXT, extra={"spans": SPANS}), level="all")
    assert [(e.positions[0], e.value) for e in alone] == [
        (4, True),
        (5, True),
        (12, False),
        (13, False),
    ]
    both = found(wb.Prompt(TEXT, extra={"spans": SPANS}, labels={"body": 0}), level="all")
    assert [e.positions[0] for e in both] == list(range(len(TEXT)))
    assert [e.positions[0] for e in both if e.value] == [4, 5]


def test_rules_need_no_labels() -> None:
    prompt = wb.Prompt(TEXT, extra={"relation": "tax"})
    digits = found(prompt, features=["token:digit"], level="all")
    assert [e.positions[0] for e in digits if e.value] == [12, 13]
    assert len(digits) == len(TEXT)
    first = found(prompt, "llama", features=["position:0"], level="all")
    assert [e.positions[0] for e in first if e.value] == [1]  # behind the BOS
    assert found(prompt, features=["relation=tax", "relation=x", "colour=red"]) == [
        Example("relation=tax", (18,), True),
        Example("relation=x", (18,), False),
    ]


def test_predicates_by_hand() -> None:
    said = {
        " Paris": {"capitalised", "leading_space"},
        "NATO": {"all_capitals"},
        "A": {"capitalised"},
        " 42": {"digit", "leading_space"},
        "...": {"punctuation"},
        " \n": {"whitespace", "leading_space"},
        "é": {"non_ascii"},
        "<0xC3>": {"non_ascii"},
        "<0x41>": set(),
        "word": set(),
    }
    for text, names in said.items():
        assert {name for name, test in PREDICATES.items() if test(text)} == names, text
    prefix, suffix = rule_of("token:prefix=un"), rule_of("token:suffix=ing")
    assert prefix is not None
    assert suffix is not None
    assert prefix.of_token is not None
    assert suffix.of_token is not None
    assert prefix.of_token(" undo", 0)
    assert not suffix.of_token(" undo", 0)


def test_files_and_columns(tmp_path: Path) -> None:
    """A CSV column `label`, an empty cell being no label; JSONL with a line for errors to name."""
    table = tmp_path / "a.csv"
    table.write_text("text,label,group,split\nabc,1,g,train\nabd,0,h,test\nabe,,h,test\n")
    prompts = wb.PromptSet.read(table)
    assert [labels_of(p, "") for p in prompts] == [{"label": True}, {"label": False}, {}]
    lines = tmp_path / "a.jsonl"
    lines.write_text("\n" + json.dumps({"text": "abc", "labels": {"x": 2}}))
    read = wb.PromptSet.read(lines)
    with pytest.raises(wb.PromptError, match="^line 2: label 'x' is 2: expected 0 or 1, or none$"):
        labels_of(read[0], called(read, 0))
    assert called(wb.PromptSet.of(["a"]), 0) == "prompt 0"


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (wb.Prompt("abc", labels=[1]), r"line 7: labels are \[1\]: expected an object"),
        (wb.Prompt("abc", extra={"spans": "x"}), "line 7: spans are 'x': expected a list"),
        (wb.Prompt("abc", extra={"spans": [{"start": 0}]}), "line 7, span 0 is .*expected"),
        (
            wb.Prompt("abc", extra={"spans": [{"start": 2, "end": 2, "feature": "x"}]}),
            r"span 0 is \[2, 2\]: expected characters, start < end",
        ),
        (
            wb.Prompt("abc", extra={"spans": [{"start": 2, "end": 9, "feature": "x"}]}),
            "span 0 ends at 9: the text has 3 characters",
        ),
    ],
)
def test_bad_lines_are_named(prompt: wb.Prompt, message: str) -> None:
    with pytest.raises(wb.PromptError, match=message):
        found(prompt, level="span")


@pytest.mark.parametrize("name", ["token:vowel", "token:prefix=", "position:x"])
def test_unknown_rules_are_refused(name: str) -> None:
    with pytest.raises(wb.SettingError, match=f"feature '{name}': expected"):
        rule_of(name)


def test_atlas_facts_say_relation_entity_and_continent() -> None:
    prompts = atlas_facts()
    france = next(p for p in prompts if p.group == "France" and p.labels["relation=capital"])
    assert france.labels["continent=Europe"] == france.labels["entity=country"] == 1
    assert france.labels["continent=Asia"] == france.labels["entity=person"] == 0
    assert all(france.text[s["start"] : s["end"]] == "France" for s in france.extra["spans"])
    newton = next(p for p in prompts if p.group == "Isaac Newton")
    assert not any(name.startswith("continent") for name in newton.labels)
    for p in prompts:
        assert sum(v for k, v in p.labels.items() if k.startswith("relation")) == 1


def test_templates_hold_both_forms_of_a_word_in_one_group() -> None:
    for prompts, feature in ((plurals(), "plural"), (tenses(), "past")):
        by_group: dict[str, set[int]] = {}
        for p in prompts:
            by_group.setdefault(str(p.group), set()).add(p.labels[feature])
            (span,) = p.extra["spans"]
            assert p.text[span["start"] : span["end"]].startswith(str(p.group))
        assert all(values == {0, 1} for values in by_group.values())


def test_compounds_negatives_miss_either_word_equally_often() -> None:
    pairs = [("social", "security"), ("prime", "factors"), ("magnetic", "field")]
    prompts = compounds(pairs)
    for first, second in pairs:
        own = [p for p in prompts if f"{first} {second}" in p.labels]
        negatives = [p.text for p in own if not p.labels[f"{first} {second}"]]
        assert len(negatives) == len(own) // 2
        assert sum(first in text for text in negatives) == len(negatives) // 2
        assert sum(second in text for text in negatives) == len(negatives) // 2


def test_code_and_prose_come_of_the_same_modules() -> None:
    prompts = python_code(modules=3, each=2)
    assert {p.labels["python_code"] for p in prompts} == {0, 1}
    assert all(80 <= len(p.text) <= 120 for p in prompts)
    code = [p for p in prompts if p.labels["python_code"]]
    assert all(p.text.startswith(("def ", "@")) for p in code)
    assert {p.group for p in code} == {p.group for p in prompts}


@pytest.mark.parametrize("name", MADE)
def test_the_bundled_model_reads_every_made_prompt(name: str) -> None:
    """None is longer than its context, and none is there twice, which probes would refuse."""
    atlas, prompts = wb.load(), MADE[name]()
    for prompt in prompts:
        atlas.encode(prompt, long_targets=True)
    assert len({(p.text, p.group) for p in prompts}) == len(prompts)


def test_built_in_makers_label_prompts_that_have_no_labels() -> None:
    """What the prompt says itself wins; a word's span, and the prompt's label where it ends the text."""
    made = found(wb.Prompt("The keys of a key"), makers=["plurals"], level="span")
    assert [(e.positions, e.value) for e in made] == [((7,), True), ((16,), False)]
    assert found(wb.Prompt("The keys"), makers=["plurals"]) == [Example("plural", (7,), True)]
    own = wb.Prompt("The keys", labels={"plural": 0})
    assert found(own, makers=["plurals"]) == [Example("plural", (7,), False)]
    assert found(wb.Prompt("The keys fell"), makers=["plurals"]) == []
    past = found(wb.Prompt("They walked"), makers=["tenses"])
    assert past == [Example("past", (10,), True)]
    pair = [
        found(wb.Prompt(text), makers=["compound:prime factors"])[0].value
        for text in ("of prime factors", "of prime time", "of risk factors")
    ]
    assert pair == [True, False, False]


def test_facts_are_told_by_their_subjects() -> None:
    prompt = wb.Prompt("In Japan", extra={"relation": "capital"})
    labels = {e.feature: e.value for e in found(prompt, makers=["atlas_facts"])}
    true = {name for name, value in labels.items() if value}
    assert true == {"entity=country", "continent=Asia", "relation=capital"}
    both = found(wb.Prompt("Japan or Kenya"), makers=["atlas_facts"])
    assert both == []  # two subjects say nothing of the prompt
    spans = found(wb.Prompt("Japan or Kenya"), makers=["atlas_facts"], level="span")
    assert [e.value for e in spans if e.feature == "continent=Africa"] == [False, True]


def test_an_unknown_maker_is_refused() -> None:
    with pytest.raises(wb.SettingError, match="labels has 'plural': expected of atlas_facts"):
        SparseProbe(labels="plural")
    assert SparseProbe(labels=["plurals", "tenses"]).labels == ("plurals", "tenses")
