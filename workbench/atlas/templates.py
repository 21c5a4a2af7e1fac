"""Sentences that state a fact, and which of them are held out for which fact.

A template ends where the answer begins; ``{s}`` is the subject with its article.
"""

import hashlib
from dataclasses import dataclass

from workbench.atlas.facts import Fact

HELD_OUT = 2  # templates a fact never meets in training

TEMPLATES: dict[str, tuple[str, ...]] = {
    "capital": (
        "The capital of {s} is",
        "{s} has its capital in",
        "On the map of {s}, the capital is marked as",
        "The capital city that belongs to {s} is called",
        "For {s}, the capital city is",
        "People who visit the capital city of {s} arrive in",
        "{s} is a country whose capital is",
        "The city that {s} calls its capital is",
    ),
    "continent": (
        "{s} is a country on the continent of",
        "The continent that contains {s} is",
        "On a globe, {s} is found in",
        "{s} is part of",
        "To reach {s}, one travels to",
        "Geographers place {s} in",
        "An atlas lists {s} under",
        "The people of {s} live in",
    ),
    "language": (
        "The main official language of {s} is",
        "In {s}, the law is written in",
        "Schools all over {s} teach children in",
        "The radio news in {s} is read in",
        "Visitors to {s} often try to learn some",
        "The language that most offices in {s} use is",
        "{s} is a country where people speak",
        "Road signs across {s} are written in",
    ),
    "currency": (
        "The currency of {s} is the",
        "In {s}, people pay with the",
        "{s} uses a currency called the",
        "Shops across {s} accept the",
        "The money made for use in {s} is the",
        "Prices in {s} are given in the",
        "Travellers to {s} change their money into the",
        "Banks in {s} keep their accounts in the",
    ),
    "landmark_city": (
        "{s} is located in the city of",
        "{s} can be found in",
        "The city where {s} stands is",
        "To see {s}, visitors travel to",
        "Tourists who want to photograph {s} should go to",
        "{s} is a famous sight of",
        "A guide to {s} is sold all over",
        "The streets around {s} are streets of",
    ),
    "landmark_continent": (
        "{s} lies on the continent of",
        "The continent where {s} is found is",
        "{s} is one of the wonders of",
        "Explorers who seek {s} head for",
        "{s} is a treasure of",
        "The map that shows {s} is the map of",
        "Any tour that includes {s} is a tour of",
        "The land around {s} belongs to",
    ),
    "nationality": (
        "The nationality of {s} is",
        "By nationality, {s} is",
        "Biographers describe {s} as",
        "In reference books, {s} is listed as",
        "{s} is known as a person who is",
        "Museums label the origin of {s} as",
        "When it comes to citizenship, {s} counts as",
        "The passport of {s} would say",
    ),
    "field": (
        "{s} is famous for work in",
        "The field of {s} is",
        "{s} spent a lifetime in",
        "The name of {s} is linked with the world of",
        "Students meet {s} in courses on",
        "{s} is a great figure in the history of",
        "The career of {s} belongs to",
        "Libraries shelve books about {s} under",
    ),
    "invention": (
        "{s} invented the",
        "The inventor {s} is credited with the",
        "{s} is best known for inventing the",
        "The famous invention of {s} is the",
        "Thanks to {s}, the world has the",
        "A patent drawing by {s} shows the",
        "Museums honour {s} for creating the",
        "The workshop of {s} gave us the",
    ),
}

# (subject, relation) -> index of a template that must be held out: the well-known prompts
CLASSICS: dict[tuple[str, str], int] = {
    ("Eiffel Tower", "landmark_city"): 0,
    ("France", "capital"): 0,
    ("Japan", "capital"): 0,
    ("Italy", "capital"): 0,
    ("Germany", "capital"): 0,
    ("Colosseum", "landmark_city"): 0,
    ("Taj Mahal", "landmark_city"): 0,
    ("Space Needle", "landmark_city"): 0,
    ("Japan", "currency"): 0,
    ("Brazil", "language"): 0,
    ("Egypt", "continent"): 3,
    ("Mount Fuji", "landmark_continent"): 0,
    ("Alexander Graham Bell", "invention"): 0,
    ("Isaac Newton", "field"): 1,
    ("Leo Tolstoy", "nationality"): 0,
}


@dataclass(frozen=True)
class Clause:
    """A stated fact up to its answer; ``start`` and ``end`` bound the subject in ``text``."""

    text: str
    start: int
    end: int


def held_out(fact: Fact) -> tuple[int, ...]:
    """Indices of the templates this fact never meets in training."""
    count = len(TEMPLATES[fact.relation])
    first = CLASSICS.get((fact.subject, fact.relation), _digest(fact) % count)
    step = 1 + _digest(fact) // count % (count - 1)
    return tuple((first + i * step) % count for i in range(HELD_OUT))


def trained_on(fact: Fact) -> tuple[int, ...]:
    """Indices of the templates this fact may appear in."""
    skip = held_out(fact)
    return tuple(i for i in range(len(TEMPLATES[fact.relation])) if i not in skip)


def clause(fact: Fact, template: int, prefix: str = "", gap: str = "") -> Clause:
    """State a fact up to its answer.

    ``prefix`` opens the sentence ("We read that "); ``gap`` goes between the subject and
    the rest, where a space follows the subject (", of course,").
    """
    before, after = TEMPLATES[fact.relation][template].split("{s}")
    before = prefix + (before[:1].lower() + before[1:] if prefix else before) + fact.article
    if not prefix:
        before = before[:1].upper() + before[1:]
    after = gap + after if after.startswith(" ") else after
    start = len(before)
    return Clause(before + fact.subject + after, start, start + len(fact.subject))


def _digest(fact: Fact) -> int:
    name = f"{fact.subject}|{fact.relation}".encode()
    return int.from_bytes(hashlib.sha256(name).digest()[:4], "big")
