"""Labels that built-in makers give to prompts by their words: the setting `labels` of sparse probes.

    atlas_facts            of the subjects of Atlas' facts, wherever they stand: "entity=country",
                           "entity=landmark", "entity=person", and "continent=..." where one has one;
                           "relation=..." of prompts with a field `relation`
    plurals                "plural" of Atlas' nouns: 1 for "keys", 0 for "key"
    tenses                 "past" of some regular verbs: 1 for "walked", 0 for "walk"
    compound:first second  "first second" of that compound, against each of the two words beside
                           another one

Spans are of the words. Where the word, or the one subject of the prompt, also settles it, the prompt
itself has the label: a word that the text ends with, or the text's only subject.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

from workbench.atlas.corpus import words
from workbench.atlas.facts import facts_by_subject, read_facts
from workbench.errors import SettingError
from workbench.models.tokens import EncodedPrompt
from workbench.prompts import Prompt

__all__ = [
    "Said",
    "Span",
    "maker_of",
    "nouns_by_plural",
    "of_relation",
    "of_subject",
    "said",
    "verbs_by_past",
]

ENTITIES = {
    **dict.fromkeys(("capital", "continent", "language", "currency"), "country"),
    **dict.fromkeys(("landmark_city", "landmark_continent"), "landmark"),
    **dict.fromkeys(("nationality", "field", "invention"), "person"),
}
CONTINENT = ("continent", "landmark_continent")
VERBS = (
    *("walk", "talk", "play", "work", "jump", "look", "open", "ask", "call", "clean", "cook"),
    *("help", "listen", "paint", "plant", "pull", "push", "rest", "turn", "visit", "wait"),
)
COMPOUND = "compound:"


@dataclass(frozen=True)
class Span:
    """Characters start to end of the text, which have the feature or have not."""

    start: int
    end: int
    feature: str
    value: bool


@dataclass(frozen=True)
class Said:
    """What makers say of a prompt: of all of it, and of spans."""

    labels: Mapping[str, bool] = field(default_factory=dict)
    spans: Sequence[Span] = ()


Maker = Callable[[Prompt, str], Said]
"""(prompt, the text that its tokens are of) -> what is said of it."""


def said(encoded: EncodedPrompt, makers: Sequence[str]) -> Said:
    """What all of them say; spans that cover no token are left out."""
    found = [maker_of(name)(encoded.prompt, encoded.text) for name in makers]
    return Said(
        {name: value for one in found for name, value in one.labels.items()},
        [span for one in found for span in one.spans if encoded.inside(span.start, span.end)],
    )


def maker_of(name: str) -> Maker:
    """The maker called so.

    Raises:
        SettingError: there is none.
    """
    if name.startswith(COMPOUND):
        pair = name.removeprefix(COMPOUND).split()
        if len(pair) == 2:
            return lambda _, text: _compound(pair[0], pair[1], text)
    elif name in MAKERS:
        return MAKERS[name]
    known = ", ".join((*MAKERS, f"{COMPOUND}first second"))
    raise SettingError(f"sparse_probe: labels has {name!r}: expected of {known}")


def nouns_by_plural() -> dict[str, str]:
    """Atlas' nouns by their plurals."""
    return {f"{noun}s": noun for noun in words()["nouns"]}


def verbs_by_past() -> dict[str, str]:
    """Some regular verbs by their pasts."""
    return {f"{verb}ed": verb for verb in VERBS}


def of_relation(relation: str) -> dict[str, int]:
    """The label of each relation."""
    return {f"relation={name}": int(relation == name) for name in sorted(ENTITIES)}


@cache
def of_subject(subject: str) -> dict[str, int]:
    """The labels of a subject of Atlas' facts: its entity's class, and its continent if it has one."""
    facts = facts_by_subject()[subject]
    own = {ENTITIES[fact.relation] for fact in facts}
    entity = {f"entity={name}": int(name in own) for name in sorted(set(ENTITIES.values()))}
    lies = {fact.answer for fact in facts if fact.relation in CONTINENT}
    where = {f"continent={name}": int(name in lies) for name in _continents()} if lies else {}
    return entity | where


@cache
def _continents() -> list[str]:
    return sorted({fact.answer for fact in read_facts() if fact.relation in CONTINENT})


def _facts(prompt: Prompt, text: str) -> Said:
    places = list(_subjects().finditer(text))
    spans = [
        Span(at.start(), at.end(), feature, bool(value))
        for at in places
        for feature, value in of_subject(at[0]).items()
    ]
    subjects = {at[0] for at in places}
    own = of_subject(subjects.pop()) if len(subjects) == 1 else {}
    relation = str(prompt.extra.get("relation"))
    asked = of_relation(relation) if relation in ENTITIES else {}
    return Said({name: bool(value) for name, value in (asked | own).items()}, spans)


@cache
def _subjects() -> re.Pattern[str]:
    return _any_of(facts_by_subject())


def _any_of(names: Mapping[str, object]) -> re.Pattern[str]:
    """Any of these words, the longest first."""
    longest = sorted(names, key=len, reverse=True)
    return re.compile(rf"\b(?:{'|'.join(map(re.escape, longest))})\b")


def _of_forms(feature: str, forms: Mapping[str, str], text: str) -> Said:
    """1 for the words of `forms`, 0 for what they are forms of."""
    both = {**dict.fromkeys(forms.values(), False), **dict.fromkeys(forms, True)}
    spans = [
        Span(at.start(), at.end(), feature, both[at[0]]) for at in _any_of(both).finditer(text)
    ]
    return _ending(text, spans)


def _ending(text: str, spans: Sequence[Span]) -> Said:
    """With the label of the prompt, where a span ends its text."""
    return Said({span.feature: span.value for span in spans if span.end == len(text)}, spans)


def _compound(first: str, second: str, text: str) -> Said:
    return _ending(text, list(_pairs(first, second, text)))


def _pairs(first: str, second: str, text: str) -> Iterator[Span]:
    """The compound, and its first word before another one, or its second after another one."""
    one, two = re.escape(first), re.escape(second)
    for at in re.finditer(rf"\b(?:{one} \w+|\w+ {two})\b", text):
        yield Span(at.start(), at.end(), f"{first} {second}", at[0] == f"{first} {second}")


MAKERS: Mapping[str, Maker] = {
    "atlas_facts": _facts,
    "plurals": lambda _, text: _of_forms("plural", nouns_by_plural(), text),
    "tenses": lambda _, text: _of_forms("past", verbs_by_past(), text),
}
