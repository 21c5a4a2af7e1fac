"""What an edit is judged on: its prompt, paraphrases of it, and neighbours that should not change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from workbench.errors import PromptError, SettingError
from workbench.prompts import Prompt, PromptSet

__all__ = ["KINDS", "Case", "cases", "counterfactuals"]

KINDS = ("prompt", "paraphrase", "neighbour")


@dataclass(frozen=True)
class Case:
    """One text to look at before and after an edit.

    Attributes:
        kind: "prompt", "paraphrase" or "neighbour".
        text: the text.
        own: what it is answered with where the edit does not reach: a neighbour's target, the foil of
            the prompt and its paraphrases; None where that is not known.
    """

    kind: str
    text: str
    own: str | int | None


def cases(
    text: str, foil: str | int | None, extra: Mapping[str, Any], most: Mapping[str, int]
) -> list[Case | None]:
    """The cases of a prompt in their order; None where it has fewer than `most` of a kind.

    Args:
        text, foil: of the prompt.
        extra: its other fields: `paraphrases`, texts; `neighbours`, objects with `text` and `target`.
        most: the most paraphrases and neighbours, by kind.

    Raises:
        PromptError: a field of another form, or more than `most` of a kind (none is left out).
    """
    paraphrases = [Case("paraphrase", one, foil) for one in _texts(text, extra.get("paraphrases"))]
    neighbours = [_neighbour(text, one) for one in _listed(text, extra, "neighbours")]
    found: list[Case | None] = [Case("prompt", text, foil)]
    for those, kind in ((paraphrases, "paraphrase"), (neighbours, "neighbour")):
        if len(those) > most[kind]:
            raise PromptError(
                f"prompt {text[:40]!r} has {len(those)} {kind}s: expected at most {most[kind]}; give "
                f"{kind}s={len(those)}"
            )
        found += [*those, *[None] * (most[kind] - len(those))]
    return found


def _listed(text: str, extra: Mapping[str, Any], field: str) -> Sequence[Any]:
    found = extra.get(field) or ()
    if isinstance(found, list | tuple):
        return found
    raise PromptError(f"prompt {text[:40]!r}: {field} is {found!r}: expected a list")


def _texts(text: str, found: Any) -> Sequence[str]:
    texts = _listed(text, {"paraphrases": found}, "paraphrases")
    if bad := [one for one in texts if not isinstance(one, str) or not one]:
        raise PromptError(f"prompt {text[:40]!r}: paraphrase {bad[0]!r}: expected a text")
    return texts


def _neighbour(text: str, found: Any) -> Case:
    if isinstance(found, Mapping) and isinstance(found.get("text"), str) and found["text"]:
        target = found.get("target")
        if isinstance(target, str | int) and not isinstance(target, bool):
            return Case("neighbour", found["text"], target)
    raise PromptError(
        f"prompt {text[:40]!r}: neighbour {found!r}: expected an object with text and target"
    )


def counterfactuals(
    facts: PromptSet, *, neighbours: int = 8, seed: int = 0, prompts: int | None = None
) -> PromptSet:
    """Prompts to edit, from facts: each fact's foil becomes the target, and its target the foil.

    Prompts of the same subject and relation become paraphrases; neighbours are drawn from the other
    subjects of the relation, leaving out those whose own target is the new one. One fact is drawn of
    each group (the subject), so that prompts can count as independent.

    Args:
        facts: prompts with subject, target, foil and the field `relation`, such as Atlas' facts.
        neighbours: how many of each prompt, at most.
        seed: of the draws.
        prompts: how many to draw; all where None.

    Raises:
        PromptError: a prompt lacks one of the fields.
        SettingError: a number below 0, or no prompts.

    >>> from workbench.atlas import prompts_path
    >>> drawn = counterfactuals(PromptSet.read(prompts_path("facts")), prompts=2)
    >>> len(drawn), len(drawn[0].extra["paraphrases"]), len(drawn[0].extra["neighbours"])
    (2, 1, 8)
    """
    for name, value, least in (("neighbours", neighbours, 0), ("prompts", prompts, 1)):
        if value is not None and value < least:
            raise SettingError(f"{name} is {value}: expected a whole number, at least {least}")
    by_fact: dict[tuple[str, str], list[Prompt]] = {}
    for prompt in facts:
        by_fact.setdefault(_fact(prompt), []).append(prompt)
    random = Random(seed)
    by_group: dict[str, list[tuple[str, str]]] = {}
    for fact, stated in by_fact.items():
        by_group.setdefault(stated[0].group or fact[0], []).append(fact)
    drawn = [random.choice(by_group[group]) for group in sorted(by_group)]
    random.shuffle(drawn)
    return PromptSet(tuple(_edited(fact, by_fact, neighbours, random) for fact in drawn[:prompts]))


def _fact(prompt: Prompt) -> tuple[str, str]:
    relation = prompt.extra.get("relation")
    missing = [n for n in ("subject", "target", "foil") if not isinstance(getattr(prompt, n), str)]
    if missing or not isinstance(relation, str):
        raise PromptError(
            f"prompt {prompt.shown[:40]!r} has no {(missing or ['relation'])[0]}: expected subject, target, "
            "foil and relation, as texts"
        )
    return str(prompt.subject), relation


def _edited(
    fact: tuple[str, str],
    by_fact: Mapping[tuple[str, str], Sequence[Prompt]],
    neighbours: int,
    random: Random,
) -> Prompt:
    first, *others = by_fact[fact]
    near = [
        prompt
        for (subject, relation), stated in sorted(by_fact.items())
        if relation == fact[1] and subject != fact[0]
        for prompt in stated
        if prompt.target != first.foil
    ]
    chosen = random.sample(near, min(neighbours, len(near)))
    extra = {
        **first.extra,
        "paraphrases": [prompt.text for prompt in others],
        "neighbours": [{"text": prompt.text, "target": prompt.target} for prompt in chosen],
    }
    return replace(first, target=first.foil, foil=first.target, extra=extra)
