"""Write the bundled prompt sets: ``python -m workbench.atlas.prompts``.

None of these prompts occurs in the corpus: facts are asked in held-out templates, names in
held-out pairs.
"""

import json
from collections.abc import Callable, Iterator
from itertools import islice
from random import Random
from typing import Any

from workbench.atlas import prompts_path
from workbench.atlas.corpus import agreement, indirect_object, words
from workbench.atlas.facts import Fact, answers, read_facts
from workbench.atlas.templates import CLASSICS, clause, held_out

Record = dict[str, Any]


def fact_prompts(seed: int = 1) -> list[Record]:
    """Every fact in each of its held-out templates, in a shuffled order."""
    rng = Random(seed)
    records = [_fact_record(rng, f, t) for f in read_facts() for t in held_out(f)]
    rng.shuffle(records)
    return records


def classic_prompts(seed: int = 2) -> list[Record]:
    """The well-known prompts."""
    rng = Random(seed)
    facts = {(f.subject, f.relation): f for f in read_facts()}
    return [_fact_record(rng, facts[key], template) for key, template in CLASSICS.items()]


def indirect_object_prompts(count: int = 200, seed: int = 3) -> list[Record]:
    """Two names, one of them said twice: who receives? Target and foil are the two names."""
    return list(islice(_distinct(_indirect_object_records(Random(seed))), count))


def induction_prompts(count: int = 100, seed: int = 4) -> list[Record]:
    """A list of random words, begun a second time and cut off: the next word is known."""
    rng = Random(seed)
    vocabulary = sorted(_list_words())
    return [_induction_record(rng, vocabulary, i) for i in range(count)]


def agreement_prompts(count: int = 200, seed: int = 5) -> list[Record]:
    """As "The keys near the cabinet": target and foil are two forms of a verb; one label."""
    return list(islice(_distinct(_agreement_records(Random(seed))), count))


SETS: dict[str, Callable[[], list[Record]]] = {
    "facts": fact_prompts,
    "classics": classic_prompts,
    "indirect_object": indirect_object_prompts,
    "induction": induction_prompts,
    "agreement": agreement_prompts,
}


def read_prompts(name: str) -> list[Record]:
    """Records of a bundled prompt set."""
    with prompts_path(name).open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def write_prompts() -> None:
    """Write every bundled prompt set."""
    for name, make in SETS.items():
        with prompts_path(name).open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(record) + "\n" for record in make())


def _fact_record(rng: Random, fact: Fact, template: int) -> Record:
    stated = clause(fact, template)
    slug = f"{fact.subject} {fact.relation} {template}".lower().replace(" ", "-")
    return {
        "id": slug,
        "text": stated.text,
        "subject": fact.subject,
        "target": f" {fact.answer}",
        "foil": f" {rng.choice([a for a in answers(fact.relation) if a != fact.answer])}",
        "relation": fact.relation,
        "group": fact.subject,
    }


def _indirect_object_records(rng: Random) -> Iterator[Record]:
    while True:
        text, recipient, giver = indirect_object(rng, held_out_pairs=True)
        yield {
            "text": text,
            "target": f" {recipient}",
            "foil": f" {giver}",
            "group": " ".join(sorted((recipient, giver))),
        }


def _agreement_records(rng: Random) -> Iterator[Record]:
    while True:
        text, verbs, plural = agreement(rng)
        forms = [f" {verb.split()[0]}" for verb in verbs]
        yield {
            "text": text,
            "target": forms[plural],
            "foil": forms[not plural],
            "group": text.split()[1].removesuffix("s"),
            "labels": {"plural": int(plural)},
        }


def _distinct(records: Iterator[Record]) -> Iterator[Record]:
    seen: set[str] = set()
    for record in records:
        if record["text"] not in seen:
            seen.add(record["text"])
            yield {"id": str(len(seen) - 1), **record}


def _list_words() -> set[str]:
    facts = {f.answer for f in read_facts()}
    return facts.union(*(words()[key] for key in ("names", "nouns", "objects", "adjectives")))


def _induction_record(rng: Random, vocabulary: list[str], index: int) -> Record:
    once = rng.sample(vocabulary, rng.randint(8, 16))
    cut = rng.randint(3, len(once) - 2)
    return {
        "id": str(index),
        "text": "Note that " + " ".join(once + once[:cut]),
        "target": f" {once[cut]}",
        "foil": f" {once[cut + 1]}",
        "group": str(index),
    }


if __name__ == "__main__":
    write_prompts()
