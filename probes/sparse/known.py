"""What is known of the examples before any activation: splits, groups, controls, arrangements.

All of it is of the whole prompt set and of the labels alone, so that a pass over any part of the prompts,
in any order, can say of each example which part it belongs to and which labels arrangements give it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from probes.sparse.controls import control_labels
from probes.sparse.labels import Example, Labeller, called
from probes.sparse.significance import Arrangements
from probes.sparse.splits import given_split, group_codes, split_by_group
from workbench.errors import PromptError, TargetError
from workbench.models.protocol import Model
from workbench.models.tokens import EncodedPrompt
from workbench.prompts import Prompt, PromptSet

__all__ = ["Feature", "Known", "Rows", "offsets_of"]


@dataclass(frozen=True)
class Feature:
    """One feature over the whole prompt set.

    Attributes:
        labels, groups, part, types: [n] of its examples, in the order of the prompts; types are the
            tokens that they are of.
        offsets: [n] how many examples of the same group come before.
        control: [n] labels of the control task; None where there is none.
        arrangements: of its labels by groups; None where no p values are asked for.
        tested: whether arrangements change the labels, without which there is no p value.
    """

    name: str
    labels: Tensor
    groups: Tensor
    part: Tensor
    types: Tensor
    offsets: Tensor
    control: Tensor | None
    arrangements: Arrangements | None
    tested: bool = False

    @property
    def swapping(self) -> bool:
        """Whether arrangements swap the classes within groups."""
        return self.arrangements is not None and self.arrangements.swap


@dataclass(frozen=True)
class Rows:
    """Where examples of one feature stand in a batch.

    Attributes:
        index: which examples of the feature they are.
        places: of each, the (row, position) pairs that it pools.
    """

    index: list[int]
    places: list[list[tuple[int, int]]]


@dataclass(frozen=True)
class Known:
    """The features, and where each prompt's examples are among them.

    Attributes:
        prompts: all that can be read.
        features: by name.
        examples: by what identifies a prompt, feature by feature: (index, token positions).
        refused: why a prompt cannot be read, by what identifies it.
    """

    prompts: PromptSet
    features: Mapping[str, Feature]
    examples: Mapping[str, Mapping[str, Sequence[tuple[int, tuple[int, ...]]]]]
    refused: Mapping[str, str]

    @classmethod
    def of(
        cls, model: Model, prompts: PromptSet, labeller: Labeller, permutations: int, seed: int
    ) -> Known:
        """Of a prompt set.

        A prompt that the model or the labels refuse, or that is there twice and would count twice, is
        left out everywhere, and `require` says why.

        Raises:
            PromptError: no prompt has a label, or a feature cannot be split.
        """
        found, refused = _read(model, prompts, labeller)
        if not found:
            raise PromptError(
                next(iter(refused.values()), None)
                or "no labels: expected prompts with labels or spans, or features such as token:digit"
            )
        examples: dict[str, dict[str, list[tuple[int, tuple[int, ...]]]]] = {}
        for name, own in found.items():
            for index, (number, _, example) in enumerate(own):
                of_prompt = examples.setdefault(_identity(prompts[number]), {})
                of_prompt.setdefault(name, []).append((index, example.positions))
        features = {
            name: _feature(name, own, prompts, permutations, seed) for name, own in found.items()
        }
        good = [i for i, prompt in enumerate(prompts) if _identity(prompt) not in refused]
        return cls(prompts.subset(good) if refused else prompts, features, examples, refused)

    def require(self, prompt: Prompt) -> None:
        """Refuse a prompt that was left out.

        Raises:
            PromptError: with what is wrong with it.
        """
        if (why := self.refused.get(_identity(prompt))) is not None:
            raise PromptError(why)

    @cached_property
    def _numbers(self) -> Mapping[str, int]:
        return {_identity(prompt): number for number, prompt in enumerate(self.prompts)}

    def numbers(self, prompts: Sequence[EncodedPrompt]) -> list[int]:
        """Which of all prompts those of a batch are."""
        return [self._numbers[_identity(encoded.prompt)] for encoded in prompts]

    def rows(self, prompts: Sequence[EncodedPrompt], name: str) -> Rows:
        """The examples of feature `name` in a batch of prompts."""
        index, places = [], []
        for row, encoded in enumerate(prompts):
            for one, positions in self._of(encoded, name):
                index.append(one)
                places.append([(row, position) for position in positions])
        return Rows(index, places)

    def _of(self, encoded: EncodedPrompt, name: str) -> Iterator[tuple[int, tuple[int, ...]]]:
        yield from self.examples.get(_identity(encoded.prompt), {}).get(name, ())


Found = tuple[int, int, Example]
"""Number of the prompt, token that the example is of, example."""


def _read(
    model: Model, prompts: PromptSet, labeller: Labeller
) -> tuple[dict[str, list[Found]], dict[str, str]]:
    """Examples by feature; and what is wrong with the prompts that have none, by identity."""
    refused = _repeated(prompts)
    found = dict[str, list[Found]]()
    for number, prompt in enumerate(prompts):
        if _identity(prompt) in refused:
            continue
        try:
            encoded = model.encode(prompt, long_targets=True)
            own = labeller.examples(encoded, model.tokens, called(prompts, number))
        except (PromptError, TargetError) as error:
            refused[_identity(prompt)] = str(error)
            continue
        for one in own:
            found.setdefault(one.feature, []).append((number, encoded.ids[one.positions[-1]], one))
    return found, refused


def _repeated(prompts: PromptSet) -> dict[str, str]:
    """What is said of prompts that are there twice: which of them counts would be a guess."""
    refused, seen = dict[str, str](), dict[str, int]()
    for number, prompt in enumerate(prompts):
        first = seen.setdefault(_identity(prompt), number)
        if first != number:
            here, there = called(prompts, number), called(prompts, first)
            refused[_identity(prompt)] = f"{here} repeats {there}: expected each prompt once"
    return refused


def _feature(
    name: str, own: Sequence[Found], prompts: PromptSet, permutations: int, seed: int
) -> Feature:
    labels = torch.tensor([int(example.value) for _, _, example in own])
    groups = group_codes([_group(prompts[number]) for number, _, _ in own])
    types = torch.tensor([token for _, token, _ in own])
    splits = [prompts[number].extra.get("split") for number, _, _ in own]
    if any(split in (None, "") for split in splits):
        if any(splits):
            raise PromptError(f"feature {name!r}: some prompts have a split: expected all or none")
        part = split_by_group(labels, groups, name, seed=seed)
    else:
        part = given_split([str(split) for split in splits], labels, groups, name)
    made = Feature(
        name,
        labels,
        groups,
        part,
        types,
        offsets=offsets_of(groups),
        control=_checked(control_labels(types, labels, seed), part),
        arrangements=None,
    )
    drawn = Arrangements.draw(labels, groups, permutations, seed) if permutations else None
    tested = drawn is not None and drawn.says(groups, made.offsets)
    return replace(made, arrangements=drawn, tested=tested)


def _checked(control: Tensor | None, part: Tensor) -> Tensor | None:
    """A control task that has both classes in every part."""
    if control is None or any(len(set(control[part == one].tolist())) < 2 for one in range(3)):
        return None
    return control


def offsets_of(groups: Tensor) -> Tensor:
    """[n] how many examples of the same group come before."""
    order = groups.argsort(stable=True)
    size = torch.bincount(groups)
    found = torch.empty_like(groups)
    found[order] = torch.arange(len(groups)) - (size.cumsum(0) - size)[groups[order]]
    return found


def _group(prompt: Prompt) -> tuple[str, str]:
    """Its group; of a prompt without one, its text, so that equal texts lie on one side."""
    return ("text", prompt.shown) if prompt.group is None else ("group", prompt.group)


def _identity(prompt: Prompt) -> str:
    """All that is said of a prompt but what it is called."""
    said = (prompt.text, list(prompt.messages), prompt.group, prompt.labels, dict(prompt.extra))
    return json.dumps(said, sort_keys=True, default=str)
