"""Labelled prompt sets that need no download: facts of Atlas, templates, compounds, code."""

from __future__ import annotations

import ast
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice, product
from pathlib import Path
from random import Random

from probes.sparse.word_labels import nouns_by_plural, of_relation, of_subject, verbs_by_past
from workbench.atlas.facts import Fact, read_facts
from workbench.atlas.templates import clause, held_out
from workbench.errors import PromptError, SettingError
from workbench.prompts import Prompt, PromptSet

__all__ = ["MADE", "atlas_facts", "compounds", "plurals", "python_code", "tenses", "word_templates"]

FRAMES = (
    "Yesterday we talked about the {w}",
    "Nobody had expected the {w}",
    "In the end there was a note about the {w}",
    "My sister wrote to the office about the {w}",
    "It is well known that the {w}",
    "After a long day they saw the {w}",
)
ACTED = (
    "In the report it says that they {w}",
    "All of them {w}",
    "The people near the river {w}",
    "On most days the children {w}",
)
LEAST_LETTERS = 80  # of a piece of code or prose


def atlas_facts(seed: int = 0) -> PromptSet:
    """Every fact of Atlas in a held-out template, up to its answer, the target; group: the subject.

    Labels of the prompt: "relation=..." for each relation, "entity=..." for country, landmark and
    person; and "continent=..." where the subject has one. Entity and continent are also labels of the
    subject's span.
    """
    rng = Random(seed)
    return PromptSet.of([_fact(rng, fact) for fact in read_facts()])


def _fact(rng: Random, fact: Fact) -> Prompt:
    stated = clause(fact, rng.choice(held_out(fact)))
    said = of_subject(fact.subject)
    place = {"start": stated.start, "end": stated.end}
    return Prompt(
        stated.text,
        target=f" {fact.answer}",
        group=fact.subject,
        labels={**of_relation(fact.relation), **said},
        extra={"spans": [{**place, "feature": k, "value": v} for k, v in said.items()]},
    )


def word_templates(
    feature: str, frames: Sequence[str], positive: Sequence[str], negative: Sequence[str]
) -> PromptSet:
    """Each word in each frame, which has a "{w}"; label and span are of the word, group is the word.

    Held-out prompts so have words that no probe has seen.

    Raises:
        SettingError: a frame without "{w}".

    >>> word_templates("plural", ["See the {w}"], ["keys"], ["key"])[0].text
    'See the keys'
    """
    if lacking := [frame for frame in frames if "{w}" not in frame]:
        raise SettingError(f"frame {lacking[0]!r}: expected a place {{w}} for the word")
    valued = [(word, 1) for word in positive] + [(word, 0) for word in negative]
    return PromptSet.of(
        [_worded(feature, frame, word, value) for frame, (word, value) in product(frames, valued)]
    )


def _worded(feature: str, frame: str, word: str, value: int, group: str | None = None) -> Prompt:
    start = frame.index("{w}")
    span = {"start": start, "end": start + len(word), "feature": feature, "value": value}
    return Prompt(
        frame.replace("{w}", word, 1),
        group=word if group is None else group,
        labels={feature: value},
        extra={"spans": [span]},
    )


def plurals() -> PromptSet:
    """Atlas' nouns, singular and plural, in frames: feature "plural"; group: the noun."""
    return _of_words("plural", FRAMES, nouns_by_plural())


def tenses() -> PromptSet:
    """Regular verbs, present and past, in frames: feature "past"; group: the verb."""
    return _of_words("past", ACTED, verbs_by_past())


def _of_words(feature: str, frames: Sequence[str], stems: Mapping[str, str]) -> PromptSet:
    """`stems` are the plain words of those that have the feature."""
    return _regrouped(word_templates(feature, frames, list(stems), list(stems.values())), stems)


def _regrouped(prompts: PromptSet, stem: Mapping[str, str]) -> PromptSet:
    """Two forms of one word are of one group."""
    return PromptSet.of(
        [
            Prompt(p.text, group=stem.get(str(p.group), p.group), labels=p.labels, extra=p.extra)
            for p in prompts
        ]
    )


def compounds(
    pairs: Sequence[tuple[str, str]], frames: Sequence[str] = FRAMES, seed: int = 0
) -> PromptSet:
    """Two-word compounds against hard negatives, each a feature "first second"; group: the frame.

    A compound's negatives are as many as its positives: half have its first word and another second
    one, half another first word and its second one, so that neither word alone tells them apart.

    Raises:
        SettingError: fewer than two pairs, from which no negative can be made.

    >>> len(compounds([("social", "security"), ("prime", "factors")]))
    24
    """
    if len(pairs) < 2:
        raise SettingError(f"{len(pairs)} compounds: expected at least two, to make negatives of")
    rng = Random(seed)
    return PromptSet.of(
        [
            prompt
            for number, (frame, pair) in enumerate(product(frames, pairs))
            for prompt in _compound(rng, number // len(pairs), frame, pair, pairs)
        ]
    )


def _compound(
    rng: Random, number: int, frame: str, pair: tuple[str, str], pairs: Sequence[tuple[str, str]]
) -> list[Prompt]:
    first, second = pair
    other = rng.choice([one for one in pairs if one != pair])
    near = f"{first} {other[1]}" if number % 2 else f"{other[0]} {second}"
    name = f"{first} {second}"
    return [_worded(name, frame, name, 1, frame), _worded(name, frame, near, 0, frame)]


def python_code(modules: int = 40, each: int = 4, letters: int = 120) -> PromptSet:
    """Code against prose, both of the standard library's own source: feature "python_code".

    Positives are functions without their docstrings, negatives are docstrings; group: the module.

    Args:
        modules: how many modules, in alphabetical order, of those that have both.
        each: pieces of either kind from a module, at most.
        letters: of a piece, at most; so few that Atlas, of 128 places, reads every one.

    Raises:
        PromptError: the standard library's source is not there.
    """
    folder = Path(sysconfig.get_path("stdlib"))
    found = ((path.stem, _pieces(path)) for path in sorted(folder.glob("*.py")))
    both = ((name, kinds) for name, kinds in found if all(kinds))
    made = [
        Prompt(text, group=name, labels={"python_code": value})
        for name, kinds in islice(both, modules)
        for value, texts in enumerate(kinds)
        for text in list(dict.fromkeys(text[:letters] for text in texts))[:each]
    ]
    if not made:
        raise PromptError(f"no Python source in {folder}: expected the standard library's own")
    return PromptSet.of(made)


def _pieces(path: Path) -> tuple[list[str], list[str]]:
    """Docstrings, and functions without them, that are long enough."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    prose = [text for node in functions if (text := ast.get_docstring(node))]
    return _long(prose), _long(map(_code, functions))


def _long(texts: Iterable[str]) -> list[str]:
    return list(_at_least(texts, LEAST_LETTERS))


def _at_least(texts: Iterable[str], letters: int) -> Iterator[str]:
    return (text for text in texts if len(text) >= letters)


def _code(function: ast.FunctionDef) -> str:
    body = function.body[1:] if ast.get_docstring(function) else function.body
    function.body = body or [ast.Pass()]
    return ast.unparse(function)


MADE: Mapping[str, Callable[[], PromptSet]] = {
    "atlas_facts": atlas_facts,
    "plurals": plurals,
    "tenses": tenses,
    "python_code": python_code,
}
"""Labelled sets by name, which the command line and the app offer."""
