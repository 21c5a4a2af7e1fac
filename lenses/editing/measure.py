"""One prompt's edits, and what comes of them in each of its cases."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lenses.editing.answers import Answer, distinct, scores
from lenses.editing.cases import Case
from lenses.editing.edits import GradientStep, Imprint, ImprintShift, Scale, WeightEdit, imprints
from workbench.models.protocol import Model
from workbench.models.tokens import EncodedPrompt

__all__ = ["METHODS", "Asked", "Edits"]

METHODS = ("imprint_shift", "gradient", "random")


@dataclass(frozen=True)
class Asked:
    """The answers to look for in every case, None where there is none.

    Attributes:
        wanted: the edit's target.
        own: what the text was answered with before.
    """

    wanted: Sequence[Answer | None]
    own: Sequence[Answer | None]

    @classmethod
    def of(cls, model: Model, prompt: EncodedPrompt, cases: Sequence[Case | None]) -> Asked:
        """The answers of a prompt's cases, of which the first is the prompt itself.

        Raises:
            TargetError: it has no target, or a case has one that is no token of the model.
            PromptError: a case's text cannot be used.
        """
        answer, target = Answer.of(prompt), prompt.prompt.target
        assert target is not None
        foil = None if prompt.foil is None else Answer(prompt, (prompt.foil,))
        wanted = [None if one is None else Answer.to(model, one.text, target) for one in cases[1:]]
        own = [
            None if one is None or one.own is None else Answer.to(model, one.text, one.own)
            for one in cases[1:]
        ]
        return cls((answer, *wanted), (foil, *own))

    @property
    def answer(self) -> Answer:
        """What is edited in: the prompt's own."""
        assert self.wanted[0] is not None
        return self.wanted[0]

    @property
    def answers(self) -> list[Answer]:
        """All that there are."""
        return [answer for answer in (*self.wanted, *self.own) if answer is not None]

    def scored(self, model: Model, start: tuple[int, Tensor] | None = None) -> dict[str, Tensor]:
        """Log-probability and rank of both answers, and the top token: [case], NaN or -1 for none."""
        found = scores(model, self.answers, start)
        there = torch.tensor([answer is not None for answer in (*self.wanted, *self.own)])
        logprob, rank = (_spread(part, there) for part in (found.logprob, found.rank.double()))
        n = len(self.wanted)
        return {
            "target_logprob": logprob[:n],
            "target_rank": rank[:n],
            "own_logprob": logprob[n:],
            "own_rank": rank[n:],
            "top_id": _spread(found.top, there)[:n],
        }

    def states(self, model: Model) -> list[Tensor]:
        """[rows, width, d] states after each layer 0..L of the texts, to restart passes from."""
        batch = model.batch([answer.prompt for answer in distinct(self.answers).values()])
        caught = model.capture(batch, "resid_post")
        empty = caught["resid_post", 0].new_zeros(*batch.ids.shape, model.d_model)
        return [
            caught.places.scatter(empty, caught["resid_post", layer])
            for layer in caught.layers("resid_post")
        ]


def _spread(values: Tensor, there: Tensor) -> Tensor:
    """Values at the places where there is one."""
    none = float("nan") if values.is_floating_point() else -1
    out = values.new_full(there.shape, none)
    out[there] = values
    return out


@dataclass(frozen=True)
class Edits:
    """The edits that one prompt's target is edited in with, at any layer and of any size.

    Attributes:
        imprints: by layer.
        step: a step of gradient descent at every layer, of learning rate 1.
        drawn: [tokens, d] random directions, each as long as its token's row of the unembedding.
    """

    model: Model
    imprints: Mapping[int, Imprint]
    step: WeightEdit
    drawn: Tensor

    @classmethod
    def of(cls, model: Model, answer: Answer, layers: Sequence[int], seed: int) -> Edits:
        """From one forward pass and one with a backward."""
        found = imprints(model, answer, layers)
        maps = [(model.weights.last_mlp_map, layer) for layer in layers]
        step = GradientStep(maps, 1.0).on_answer(model, answer)
        return cls(model, found, step, _drawn(found[layers[0]].directions, answer, seed))

    def at(self, layer: int, eta: float, scale: Scale) -> dict[str, WeightEdit]:
        """Three edits of one Frobenius norm, by method."""
        how, imprint = ImprintShift(layer, eta, scale), self.imprints[layer]
        edit = how.from_imprint(self.model, imprint)
        key = (self.model.weights.last_mlp_map, layer)
        gradient = WeightEdit({key: self.step.changes[key]})
        size = gradient.norm
        control = how.from_imprint(self.model, replace(imprint, directions=self.drawn))
        # The gradient vanishes where the target is certain: there is then no step to take.
        gradient = gradient.times(edit.norm / size if size else 0.0)
        return dict(zip(METHODS, (edit, gradient, control), strict=True))

    def size(self, layer: int, eta: float, scale: Scale) -> tuple[float, float]:
        """The paper's eta, of the first token, and the Frobenius norm of the edits."""
        how, imprint = ImprintShift(layer, eta, scale), self.imprints[layer]
        return float(how.etas(self.model, imprint)[0]), how.from_imprint(self.model, imprint).norm


def _drawn(directions: Tensor, answer: Answer, seed: int) -> Tensor:
    """Random directions as long as these; the same for a prompt in any batch and on any device."""
    digest = hashlib.sha256(repr((seed, answer.prompt.ids, answer.tokens)).encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    drawn = torch.randn(directions.shape, generator=generator, dtype=torch.float64)
    units: Tensor = torch.nn.functional.normalize(drawn, dim=-1).to(directions)
    return units.mul(directions.norm(dim=-1, keepdim=True))
