"""The facts of Atlas: hand-written tables of entities, read as (subject, relation, answer)."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

DATA = Path(__file__).parent / "data"

# table -> column -> relation
RELATIONS = {
    "countries": {
        "capital": "capital",
        "continent": "continent",
        "language": "language",
        "currency": "currency",
    },
    "landmarks": {"city": "landmark_city", "continent": "landmark_continent"},
    "people": {"nationality": "nationality", "field": "field", "invention": "invention"},
}


@dataclass(frozen=True)
class Fact:
    """One true statement: ``answer`` is one word without its leading space."""

    subject: str  # without article: "Eiffel Tower"
    article: str  # "the " or ""
    relation: str
    answer: str

    @property
    def name(self) -> str:
        """Subject as it stands inside a sentence: "the Eiffel Tower"."""
        return self.article + self.subject


@cache
def read_facts() -> tuple[Fact, ...]:
    """All facts, in the order of the tables."""
    return tuple(fact for table in RELATIONS for fact in _read_table(table))


@cache
def answers(relation: str) -> tuple[str, ...]:
    """Distinct answers of a relation, sorted."""
    return tuple(sorted({f.answer for f in read_facts() if f.relation == relation}))


@cache
def facts_by_subject() -> dict[str, tuple[Fact, ...]]:
    """Subject -> its facts."""
    table: dict[str, list[Fact]] = {}
    for fact in read_facts():
        table.setdefault(fact.subject, []).append(fact)
    return {subject: tuple(facts) for subject, facts in table.items()}


def _read_table(table: str) -> Iterator[Fact]:
    with (DATA / f"{table}.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            article = "the " if row["name"].startswith("the ") else ""
            subject = row["name"].removeprefix("the ")
            for column, relation in RELATIONS[table].items():
                if row[column]:
                    yield Fact(subject, article, relation, row[column])
