"""Editing by one forward pass, and by one step of gradient descent: changes that are never written.

For the MLP's last map z = x W (FF2, or down where it is gated), one step of gradient descent adds
-lr * sum_i x_i^T delta_i. Its imprint is the input x_i, its shift -delta_i, and at the last position
the shift points to the target. So a forward pass alone makes an edit:

    1. run the prompt, and keep x_n, the map's input at the last position;
    2. look up e, the target's row of the unembedding;
    3. W += eta x_n^T e.

Where the same x comes again the map gives eta |x|^2 e more, which reads as the target; where x is
another x', it gives eta (x . x') e.

Source: Katz, Belinkov, Geva and Wolf 2024, "Backward Lens: Projecting Language Model Gradients into
the Vocabulary Space", arXiv 2402.12865.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from lenses.editing.answers import Answer
from workbench.errors import ModelError, SettingError, UnsupportedError
from workbench.models.changes import Change, Changes
from workbench.models.protocol import Model
from workbench.models.sites import expand_sites
from workbench.prompts import Prompts, PromptSet

__all__ = [
    "SCALES",
    "GradientStep",
    "Imprint",
    "ImprintShift",
    "Scale",
    "WeightEdit",
    "imprints",
    "require_decoder",
]

Scale = Literal["state", "raw"]
SCALES: tuple[str, ...] = get_args(Scale)


@dataclass(frozen=True, repr=False)
class WeightEdit:
    """Weights to be changed, by (map, layer); nothing is written.

    Attributes:
        changes: what is added to each weight.
    """

    changes: Changes

    def __repr__(self) -> str:
        maps = (
            f"{name} of layer {layer}, rank {len(change.left)}"
            for (name, layer), change in self.changes.items()
        )
        return f"<edit of {'; '.join(maps)}: norm {self.norm:.4g}>"

    @property
    def change(self) -> Change:
        """The change, where it is of one map.

        Raises:
            SettingError: it is of several.
        """
        if len(self.changes) != 1:
            raise SettingError(f"an edit of {len(self.changes)} maps: look into its changes")
        return next(iter(self.changes.values()))

    @property
    def norm(self) -> float:
        """Frobenius norm of all that is added."""
        return math.hypot(*(change.norm for change in self.changes.values()))

    def times(self, factor: float) -> WeightEdit:
        """The same edit, `factor` times as large."""
        return WeightEdit(
            {key: Change(one.left, one.right * factor) for key, one in self.changes.items()}
        )

    @contextmanager
    def on(self, model: Model) -> Iterator[Model]:
        """The edited model, for any instrument and any call; `model` itself stays as it is.

        >>> with edit.on(model) as edited:  # doctest: +SKIP
        ...     LogitLens()(edited, prompt).plot()
        """
        yield model.with_changes(self.changes)


@dataclass(frozen=True)
class Imprint:
    """What an edit at one layer is made of, at the places where the target's tokens are predicted.

    Attributes:
        x: [tokens, d_in] inputs of the MLP's last map.
        states: [tokens, d] the residual stream after the block.
        directions: [tokens, d] e, the tokens' rows of the unembedding.
    """

    x: Tensor
    states: Tensor
    directions: Tensor


@torch.no_grad()
def imprints(model: Model, answer: Answer, layers: Sequence[int]) -> dict[int, Imprint]:
    """The imprint at each of `layers`, from one forward pass."""
    sites = [(name, layer) for layer in layers for name in ("mlp_act", "resid_post")]
    caught = model.capture(model.batch([answer.prompt]), sites, answer.positions)
    at_least = torch.promote_types(model.dtype, torch.float32)
    tokens = torch.tensor(answer.tokens)
    directions = model.weights.unembedding.rows(tokens).to(model.device, at_least)
    return {
        layer: Imprint(
            caught["mlp_act", layer].to(at_least),
            caught["resid_post", layer].to(at_least),
            directions,
        )
        for layer in layers
    }


@dataclass(frozen=True)
class ImprintShift:
    """Imprint and shift: W += eta x_n^T e at one layer (see the head of this file).

    A target of several tokens gets one such change a token, each with the input where that token is
    predicted; the changes add up, also where they meet each other's inputs.

    The right eta depends on the model: |x| and |e| do. So by default it is relative.

    Attributes:
        layer: 1..L; the paper's layer 35 of GPT-2 XL, counted from 0, is 36.
        eta: the size of the edit.
        scale: "state": eta is the length of the shift over that of the residual stream after the
            block, so that 1 adds as much as there is. "raw": eta is the paper's own (.24 there).

    >>> edit = ImprintShift(layer=4).of(model, prompt)  # doctest: +SKIP
    """

    layer: int
    eta: float = 1.0
    scale: Scale = "state"

    def __post_init__(self) -> None:
        require_size("eta", self.eta)
        if self.scale not in SCALES:
            raise SettingError(f"scale is {self.scale!r}: expected one of {', '.join(SCALES)}")

    def of(self, model: Model, prompt: Prompts) -> WeightEdit:
        """The edit that makes the prompt's target its answer.

        Raises:
            TargetError: the prompt has no target.
            UnsupportedError: the model is no decoder, has experts or quantised weights, or is on an
                engine that changes no weights; or scale="state" where a norm stands between the
                MLP and the residual stream.
            SettingError: no such layer.
        """
        require_editable(model, [self.layer])
        answer = _only(model, prompt)
        return self.from_imprint(model, imprints(model, answer, [self.layer])[self.layer])

    def from_imprint(self, model: Model, imprint: Imprint) -> WeightEdit:
        """The edit of an imprint that was taken before."""
        right = self.etas(model, imprint)[:, None] * imprint.directions
        return WeightEdit({(model.weights.last_mlp_map, self.layer): Change(imprint.x, right)})

    def etas(self, model: Model, imprint: Imprint) -> Tensor:
        """[tokens] the paper's eta, the factor of x^T e."""
        if self.scale == "raw":
            return torch.full_like(imprint.x[:, 0], self.eta)
        written = imprint.x.square().sum(-1) * imprint.directions.norm(dim=-1)
        written = written * model.weights.multiplier
        if not (written > 0).all():
            raise ModelError(
                f"no neuron of layer {self.layer} is active where the target is predicted, so an edit "
                "there adds nothing: take another layer"
            )
        require_open(model, self.layer)
        found: Tensor = self.eta * imprint.states.norm(dim=-1) / written
        return found


@dataclass(frozen=True)
class GradientStep:
    """One step of plain gradient descent on -log p(target): W -= lr x^T delta, over all positions.

    As a change of low rank, one a token of the prompt; no weight gradient is formed.

    Attributes:
        maps: (name, layer) of the linear maps, as for `model.factors`.
        lr: the learning rate.

    >>> edit = GradientStep([("ff2", 4)], lr=.1).of(model, prompt)  # doctest: +SKIP
    """

    maps: Sequence[tuple[str, int]]
    lr: float

    def __post_init__(self) -> None:
        require_size("lr", self.lr)
        pairs = not isinstance(self.maps, str) and all(
            isinstance(one, tuple | list) and len(one) == 2 for one in self.maps
        )
        if not (pairs and self.maps):
            raise SettingError(f"maps is {self.maps!r}: expected (name, layer) pairs, at least one")

    def of(self, model: Model, prompt: Prompts) -> WeightEdit:
        """The step on the prompt's target.

        Raises:
            TargetError, UnsupportedError, SettingError: as for `ImprintShift.of`; a map that the
                family lacks.
        """
        require_decoder(model)
        return self.on_answer(model, _only(model, prompt))

    def on_answer(self, model: Model, answer: Answer) -> WeightEdit:
        """The step on an answer."""
        batch = model.batch([answer.prompt])
        factors = model.factors(batch, answer.loss, list(self.maps), at=answer.positions)
        at_least = torch.promote_types(model.dtype, torch.float32)
        return WeightEdit(
            {
                key: Change(one.x.to(at_least), -self.lr * one.delta.to(at_least))
                for key, one in factors.items()
            }
        )


def require_size(name: str, value: float) -> None:
    """Refuse a step of no size."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SettingError(f"{name} is {value!r}: expected a number")
    if not math.isfinite(value) or value == 0:
        raise SettingError(f"{name} is {value}: expected a finite number that is not 0")


def require_decoder(model: Model) -> None:
    """Refuse a model whose answer does not follow its prompt.

    Raises:
        UnsupportedError: an encoder, or an encoder and a decoder.
    """
    if model.weights.kind != "decoder":
        kind = model.weights.kind.replace("_", "-")
        raise UnsupportedError(
            f"{model.name} is an {kind} model: an edit needs a decoder, whose answer follows its prompt"
        )


def require_editable(model: Model, layers: Sequence[int]) -> None:
    """Refuse a model or layers that no edit of the MLP's last map can be made at.

    Raises:
        UnsupportedError: no decoder, experts, or quantised weights.
        SettingError: no such layer.
    """
    require_decoder(model)
    expand_sites([("mlp_out", layer) for layer in layers], model.n_layers)
    for layer in layers:
        model.weights.map(model.weights.last_mlp_map, layer)


def require_open(model: Model, layer: int) -> None:
    """Refuse a relative size where the MLP's output is normed before it is added."""
    if model.weights.branch_norm(model.weights.last_mlp_map, layer) is not None:
        raise UnsupportedError(
            f"{model.name}: a norm stands between its MLP and the residual stream, so the length of a "
            "shift cannot be chosen; give scale=raw"
        )


def _only(model: Model, prompt: Prompts) -> Answer:
    """The answer to the only prompt."""
    prompts = PromptSet.of(prompt)
    if len(prompts) != 1:
        raise SettingError(f"{len(prompts)} prompts: expected one, an edit is made of one prompt")
    return Answer.of(model.encode(prompts[0], long_targets=True))
