"""What steering and ablation take from a probe's result, and from a prompt's labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from probes.sparse.found import ProbeResult
from probes.sparse.labels import Labeller, Level
from workbench.errors import PromptError, SettingError
from workbench.models.batch import Batch
from workbench.models.captures import Captures
from workbench.models.protocol import Model
from workbench.models.tokens import EncodedPrompt

__all__ = [
    "CLASSES",
    "Below",
    "Label",
    "below",
    "labels_at",
    "labels_by_prompt",
    "of_layers",
    "require_classes",
]

CLASSES = ("in", "out")
Label = int
"""1 in class, 0 out of class, -1 for what nothing is said of."""


def of_layers(found: ProbeResult, layers: Sequence[int]) -> list[int]:
    """The layers that are asked for, all probed ones where none is; layer 0 holds no neurons.

    Raises:
        SettingError: one of them was not probed.
    """
    known = [layer for layer in found.layers if layer > 0]
    if missing := [layer for layer in layers if layer not in known]:
        raise SettingError(
            f"layer {missing[0]} was not probed: expected some of {', '.join(map(str, known))}"
        )
    return [layer for layer in known if layer in layers] if layers else known


def labels_by_prompt(model: Model, prompts: Sequence[EncodedPrompt], feature: str) -> list[Label]:
    """The label of each prompt as a whole."""
    found = [_examples(model, one, feature, "last") for one in prompts]
    return [next(iter(one.values()), -1) for one in found]


def labels_at(model: Model, batch: Batch, feature: str) -> Tensor:
    """[rows, width] the label of each token, as the batch is padded."""
    found = torch.full(batch.ids.shape, -1)
    for row, prompt in enumerate(batch.prompts):
        for position, label in _examples(model, prompt, feature, "all").items():
            found[row, int(batch.starts[row]) + position] = label
    return found.to(batch.device)


def _examples(model: Model, prompt: EncodedPrompt, feature: str, level: Level) -> dict[int, Label]:
    where = f"prompt {prompt.text[:40]!r}"
    examples = Labeller((feature,), level).examples(prompt, model.tokens, where)
    return {one.positions[-1]: int(one.value) for one in examples}


def require_classes(
    model: Model, prompts: Sequence[EncodedPrompt], feature: str, level: Level
) -> None:
    """Refuse prompts, or tokens, of one class or of none.

    Raises:
        PromptError: they are.
    """
    found = {label for one in prompts for label in _examples(model, one, feature, level).values()}
    what = "token" if level == "all" else "prompt"
    for value, name in ((1, "has"), (0, "lacks")):
        if value not in found:
            raise PromptError(f"no {what} {name} {feature!r}: expected some labelled 1 and some 0")


@dataclass(frozen=True)
class Below:
    """The states that a batch's blocks read, so that a pass can begin at any layer.

    Attributes:
        batch: what is run.
        captures: resid_post of the layers before the ones that are changed, at every token.
    """

    batch: Batch
    captures: Captures

    def start(self, layer: int) -> tuple[int, Tensor]:
        """Where to restart to run block `layer` and those above: after the one before."""
        values = self.captures["resid_post", layer - 1]
        empty = values.new_zeros(*self.batch.ids.shape, *values.shape[1:])
        return layer - 1, self.captures.places.scatter(empty, values)


def below(model: Model, batch: Batch, layers: Sequence[int]) -> Below:
    """Of the layers that will be changed."""
    return Below(batch, model.capture(batch, [("resid_post", layer - 1) for layer in layers]))
