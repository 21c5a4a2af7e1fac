"""From what a prompt's line says to examples: which tokens have a feature, and which have not.

A missing label is no negative: what nothing is said of is no example of the feature.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from probes.sparse.predicates import Rule, rule_of
from probes.sparse.word_labels import said
from workbench.errors import PromptError
from workbench.models.tokens import EncodedPrompt, Tokens
from workbench.prompts import Prompt, PromptSet

__all__ = ["LEVELS", "POOLS", "Example", "Labeller", "Level", "Pool", "called", "labels_of"]

Level = Literal["last", "all", "span"]
LEVELS: tuple[Level, ...] = get_args(Level)
Pool = Literal["last", "first", "mean", "max"]
POOLS: tuple[Pool, ...] = get_args(Pool)
VALUES: Mapping[Any, bool] = {0: False, 1: True, "0": False, "1": True}


@dataclass(frozen=True)
class Example:
    """One thing that has a feature or has not.

    Attributes:
        feature: its name.
        positions: the token positions whose activations it pools; one, where nothing is pooled.
        value: whether it has the feature.
    """

    feature: str
    positions: tuple[int, ...]
    value: bool


def labels_of(prompt: Prompt, where: str) -> dict[str, bool]:
    """The labels of a whole prompt: of its field `labels`, and of a column `label`.

    Args:
        where: what errors call the prompt, such as "line 3".

    Raises:
        PromptError: `labels` is no object, or a value is not 0 or 1 (null is as if it were missing).
    """
    given = {} if prompt.labels is None else prompt.labels
    if not isinstance(given, Mapping):
        raise PromptError(f"{where}: labels are {given!r}: expected an object of feature: 0 or 1")
    given = {**given, **({"label": prompt.extra["label"]} if "label" in prompt.extra else {})}
    return {
        str(feature): _value(value, str(feature), where)
        for feature, value in given.items()
        if value not in (None, "")
    }


def _value(value: Any, feature: str, where: str) -> bool:
    try:
        return VALUES[value]
    except (KeyError, TypeError):
        raise PromptError(
            f"{where}: label {feature!r} is {value!r}: expected 0 or 1, or none"
        ) from None


@dataclass(frozen=True)
class Labeller:
    """Makes examples of prompts.

    Attributes:
        features: those to take: names of labels, or rules (see `probes.sparse.predicates.rule_of`),
            which give way to a label of the same name; where empty, every label and span there is.
        level: "last": a prompt's labels are of its last token; "all": they are of each of its tokens,
            and a span's of each token of the span, which says more than the prompt's; special tokens
            are no examples; "span": an example a span.
        pool: what of a span is read: its last or first token, the mean or the greatest over its
            tokens.
        makers: built-in makers that label prompts beside what they say (see
            `probes.sparse.word_labels`).
    """

    features: Sequence[str] = ()
    level: Level = "last"
    pool: Pool = "last"
    makers: Sequence[str] = ()

    def examples(self, encoded: EncodedPrompt, tokens: Tokens, where: str) -> list[Example]:
        """The examples of one prompt, feature by feature, by ascending position.

        Raises:
            PromptError: a label or span that cannot be read, or a span that covers no token.
            SettingError: a feature whose name spells an unknown rule.
        """
        wanted = dict.fromkeys(self.features)
        spans, labels = list(_spans(encoded, where)), labels_of(encoded.prompt, where)
        made = said(encoded, self.makers)
        spans += [
            Example(one.feature, tuple(encoded.inside(one.start, one.end)), one.value)
            for one in made.spans
        ]
        labels = {**made.labels, **labels}
        names = wanted or dict.fromkeys([*labels, *(span.feature for span in spans)])
        found: list[Example] = []
        for name in names:
            own = [span for span in spans if span.feature == name]
            found += self._of_feature(name, labels.get(name), own, encoded, tokens)
        return found

    def _of_feature(
        self,
        name: str,
        label: bool | None,
        spans: list[Example],
        encoded: EncodedPrompt,
        tokens: Tokens,
    ) -> Iterator[Example]:
        rule = rule_of(name)
        if label is None and rule is not None and rule.of_prompt is not None:
            label = rule.of_prompt(encoded.prompt)
        if self.level == "span":
            yield from (self._pooled(span) for span in spans)
        elif rule is not None and rule.of_token is not None:
            yield from self._by_token(rule, encoded, tokens)
        elif self.level == "last":
            if label is not None:
                yield Example(name, (len(encoded) - 1,), label)
        else:
            yield from _each(name, label, spans, encoded)

    def _pooled(self, span: Example) -> Example:
        at = {"last": span.positions[-1:], "first": span.positions[:1]}
        return Example(span.feature, at.get(self.pool, span.positions), span.value)

    def _by_token(self, rule: Rule, encoded: EncodedPrompt, tokens: Tokens) -> Iterator[Example]:
        assert rule.of_token is not None  # the caller's
        for number, position in enumerate(_plain(encoded)):
            if self.level == "all" or position == len(encoded) - 1:
                text = tokens.text(encoded.ids[position])
                yield Example(rule.name, (position,), rule.of_token(text, number))


def _each(
    name: str, label: bool | None, spans: list[Example], encoded: EncodedPrompt
) -> Iterator[Example]:
    """Token by token: what a span says of it, or else what the prompt does."""
    by_token = {position: span.value for span in spans for position in span.positions}
    for position in _plain(encoded):
        value = by_token.get(position, label)
        if value is not None:
            yield Example(name, (position,), value)


def _plain(encoded: EncodedPrompt) -> list[int]:
    """Positions of the text's own tokens; all where the tokenizer does not know them."""
    own = [i for i, (_, stop) in enumerate(encoded.spans) if stop]
    return own or list(range(len(encoded)))


def _spans(encoded: EncodedPrompt, where: str) -> Iterator[Example]:
    given = encoded.prompt.extra.get("spans") or ()
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise PromptError(f"{where}: spans are {given!r}: expected a list of objects")
    for number, span in enumerate(given):
        at = f"{where}, span {number}"
        if not isinstance(span, Mapping) or not {"start", "end", "feature"} <= set(span):
            raise PromptError(f"{at} is {span!r}: expected an object with start, end and feature")
        start, end, feature = span["start"], span["end"], str(span["feature"])
        if type(start) is not int or type(end) is not int or not 0 <= start < end:
            raise PromptError(f"{at} is [{start!r}, {end!r}]: expected characters, start < end")
        if end > len(encoded.text):
            raise PromptError(f"{at} ends at {end}: the text has {len(encoded.text)} characters")
        inside = encoded.inside(start, end)
        if not inside:
            raise PromptError(f"{at}, of {feature!r}, covers no token: expected at least one")
        yield Example(feature, tuple(inside), _value(span.get("value", 1), feature, at))


def called(prompts: PromptSet, index: int) -> str:
    """What errors call a prompt: its line, or its name."""
    if prompts.lines is not None:
        return f"line {prompts.lines[index]}"
    return f"prompt {prompts.names[index]!r}"
