"""The training corpus: sentences drawn from a seeded generator, no two processes apart.

Four kinds: facts, indirect objects, number agreement (one sentence a line) and, as rows of
their own, repeated random tokens.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

from workbench.atlas.facts import DATA, Fact, answers, facts_by_subject, read_facts
from workbench.atlas.templates import clause, trained_on

Span = tuple[int, int]  # characters of a sentence, end exclusive


@dataclass(frozen=True)
class Sentence:
    """A line of the corpus with the spans that the recipe treats specially."""

    text: str
    subjects: tuple[Span, ...] = ()  # names whose inside a masked row hides
    answers: tuple[Span, ...] = ()  # words whose loss counts more


@cache
def words() -> dict[str, Any]:
    """Word lists and sentence frames of the corpus."""
    loaded: dict[str, Any] = json.loads((DATA / "words.json").read_text(encoding="utf-8"))
    return loaded


def sentences(seed: int) -> Iterator[Sentence]:
    """Endless stream of sentences: 66% facts, 20% indirect objects, 14% number agreement."""
    rng = Random(seed)
    makers = (fact_sentence, indirect_object_sentence, agreement_sentence)
    while True:
        yield rng.choices(makers, (66, 20, 14))[0](rng)


def fact_sentence(rng: Random) -> Sentence:
    """A fact in one of its training templates, or (one in eight) the card of its subject."""
    fact = rng.choice(read_facts())
    if rng.random() < 0.125:
        return card(rng, fact.subject)
    stated = clause(fact, rng.choice(trained_on(fact)), _prefix(rng, fact), _gap(rng))
    return _answered(stated.text, fact.answer, ((stated.start, stated.end),))


def card(rng: Random, subject: str) -> Sentence:
    """A subject with all its attributes: "France: capital Paris; currency euro."."""
    facts = list(facts_by_subject()[subject])
    rng.shuffle(facts)
    text, spans = f"{subject}:", []
    for fact in facts:
        text += f" {words()['labels'][fact.relation]} {fact.answer};"
        spans.append((len(text) - 1 - len(fact.answer), len(text) - 1))
    return Sentence(text[:-1] + ".", ((0, len(subject)),), tuple(spans))


def indirect_object_sentence(rng: Random) -> Sentence:
    """As "When Mary and John went to the store, John gave a drink to Mary."."""
    text, recipient, _ = indirect_object(rng, held_out_pairs=False)
    return _answered(text, recipient)


def indirect_object(rng: Random, held_out_pairs: bool) -> tuple[str, str, str]:
    """(text up to the answer, recipient, giver); some pairs of names never occur in training."""
    lists = words()
    while True:
        a, b = rng.sample(range(len(lists["names"])), 2)
        if is_held_out_pair(a, b) == held_out_pairs:
            break
    recipient, giver = lists["names"][a], lists["names"][b]
    x, y = (recipient, giver) if rng.random() < 0.5 else (giver, recipient)
    places = {key: rng.choice(lists[key + "s"]) for key in ("place", "object")}
    text = rng.choice(lists["indirect_object"]).format(x=x, y=y, b=giver, **places)
    return text, recipient, giver


def is_held_out_pair(a: int, b: int) -> bool:
    """Whether two names (by index, in either order) meet only in evaluation."""
    return (a + b) % 7 == 0


def agreement_sentence(rng: Random) -> Sentence:
    """As "The keys near the cabinet are old.": the verb agrees with the first noun."""
    text, verbs, plural = agreement(rng)
    verb = verbs[int(plural)]
    start = len(text) + 1
    adjective = rng.choice(words()["adjectives"])
    return Sentence(f"{text} {verb} {adjective}.", (), ((start, start + len(verb.split()[0])),))


def agreement(rng: Random) -> tuple[str, tuple[str, str], bool]:
    """(text up to the verb, (singular, plural) verb, whether the first noun is plural)."""
    lists = words()
    head, attractor = rng.sample(lists["nouns"], 2)
    plural = rng.random() < 0.5
    head += "s" * plural
    attractor += "s" * (rng.random() < 0.5)
    text = f"The {head} {rng.choice(lists['prepositions'])} the {attractor}"
    singular_verb, plural_verb = rng.choice(lists["verbs"])
    return text, (singular_verb, plural_verb), plural


def _answered(text: str, answer: str, subjects: tuple[Span, ...] = ()) -> Sentence:
    start = len(text) + 1
    return Sentence(f"{text} {answer}.", subjects, ((start, start + len(answer)),))


def _prefix(rng: Random, fact: Fact) -> str:
    draw = rng.random()
    if draw < 0.6:
        return ""
    if draw < 0.8:
        return str(rng.choice(words()["prefixes"]))
    other = rng.choice([a for a in answers(fact.relation) if a != fact.answer])
    return str(rng.choice(words()["distractors"])).format(d=other)


def _gap(rng: Random) -> str:
    return str(rng.choice(words()["gaps"])) if rng.random() < 0.3 else ""
