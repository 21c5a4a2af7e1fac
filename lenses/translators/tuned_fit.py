"""Fitting a tuned lens: states are captured, and the gradient goes through the readout alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from typing_extensions import override

from lenses.translators.fitting import LensFit
from lenses.translators.tuned import TunedLens
from lenses.vocabulary import PRODUCT_ROWS
from workbench.corpus import Corpus, batches, schedule
from workbench.errors import ModelError, SettingError
from workbench.fitting import FitPlan, Run
from workbench.models.protocol import Model
from workbench.optimisers import optimiser_state, restore_optimiser

__all__ = ["TunedFit"]

LOGITS = 2**21  # numbers of one block of logits, where the vocabulary is small
Readout = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class TunedFit(LensFit):
    """Fits a tuned lens by KL(final || lens), after Belrose et al. 2023 (arXiv 2303.08112).

    A step takes `tokens` tokens and follows the mean over its places of the KL divergence of each
    layer; the rate falls linearly to 0. The paper takes 250 steps of 2^18 tokens.

    Gradients are clipped layer by layer, so that the lens of one layer does not depend on the
    others (the authors' code clips that of all layers together).

    Attributes:
        steps: optimiser steps.
        tokens: the tokens of a step, to the next whole prompt; at most the corpus once.
        optimiser: sgd (Nesterov's momentum) or adam (with amsgrad).
        rate: the first step's learning rate; none for 1 - momentum (sgd) or .001 (adam).
        momentum: of sgd, and of adam's first moment.
        weight_decay: pulls the lens to the logit lens.
        clip: the most that the gradient of one layer may measure.
        held_out: share of the distinct prompts that is kept apart, to report KL on.
        length: tokens of a piece of a text file.
        batch_tokens: the most tokens in a forward pass, padding included.
        seed: of the order of the prompts.

    >>> lens = TunedFit(steps=50)(model, ["The capital of France is", ...])  # doctest: +SKIP
    """

    steps: int = 250
    tokens: int = 4096
    optimiser: Literal["sgd", "adam"] = "sgd"
    rate: float | None = None
    momentum: float = 0.9
    weight_decay: float = 1e-3
    clip: float = 1.0
    held_out: float = 0.1
    length: int = 128
    batch_tokens: int = 4096
    seed: int = 0

    name: ClassVar[str] = TunedLens.name
    title: ClassVar[str] = TunedLens.title

    def __post_init__(self) -> None:
        self._require(
            steps=(1, 10**9), tokens=(1, 10**12), length=(1, 10**9), batch_tokens=(1, 10**9),
            momentum=(0.0, 0.999), weight_decay=(0.0, 1.0), clip=(1e-9, 1e9), held_out=(0.0, 0.9),
            seed=(0, 2**63 - 1),
        )  # fmt: skip
        if self.optimiser not in ("sgd", "adam"):
            raise SettingError(
                f"{self.name}: optimiser is {self.optimiser!r}: expected sgd or adam"
            )
        if self.rate is not None:
            self._require(rate=(1e-12, 1e3))

    @override
    def plan(self, model: Model, corpus: Corpus) -> FitPlan:
        fitted, held = self._split(model, corpus)
        tokens = self.total(fitted)
        size = model.n_layers * model.d_model * (model.d_model + 1) * 4
        work = f"{self.steps} steps, a forward pass and {model.n_layers} readouts a token"
        return FitPlan(len(fitted), fitted.tokens, len(held), tokens, work, size)

    @override
    def total(self, corpus: Corpus) -> int:
        lengths = [len(prompt) for prompt in corpus.prompts]
        return sum(sum(lengths[i] for i in step) for step in self.schedule(lengths))

    def schedule(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """The prompts of each step: shuffled anew whenever all have had their turn."""
        return schedule(lengths, self.steps, self.tokens, self.seed)

    @override
    def fitted(self, run: Run) -> TunedLens:
        state = _State.begin(self, run)
        lengths = [len(prompt) for prompt in run.corpus.prompts]
        for number, step in enumerate(self.schedule(lengths)):
            tokens = sum(lengths[i] for i in step)
            if number < state.done:
                run.skip(tokens)
                continue
            self._step(run, state, batches(lengths, step, self.batch_tokens), tokens)
            state.done += 1
            run.advance(tokens, state.kept)
        return TunedLens(
            {n: p.detach().cpu() for n, p in state.parameters.items()}, self._made(run)
        )

    def _step(self, run: Run, state: _State, chosen: Iterator[list[int]], tokens: int) -> None:
        """One step of the optimiser on the mean over `tokens` places."""
        for parameter in state.parameters.values():
            parameter.grad = torch.zeros_like(parameter)
        for indices in chosen:
            run.stop_if_asked(state.kept)
            batch = run.model.batch([run.corpus.prompts[i] for i in indices])
            caught = run.model.capture(batch, ["resid_post"])
            states = [caught["resid_post", layer] for layer in range(run.model.n_layers + 1)]
            add_gradients(state.parameters, states, caught.readout, 1 / tokens)
        _clip(state.parameters, self.clip)
        _require_finite(state.parameters, state.done)
        state.optimiser.step()
        state.rates.step()


class _State:
    """Parameters, their optimiser, and how many steps are done."""

    def __init__(self, fit: TunedFit, parameters: Mapping[str, Tensor]) -> None:
        self.parameters = parameters
        self.done = 0
        rate = fit.rate
        self.optimiser: torch.optim.Optimizer
        if fit.optimiser == "sgd":
            self.optimiser = torch.optim.SGD(
                list(parameters.values()),
                lr=1 - fit.momentum if rate is None else rate,
                momentum=fit.momentum,
                nesterov=fit.momentum > 0,
                weight_decay=fit.weight_decay,
            )
        else:
            self.optimiser = torch.optim.Adam(
                list(parameters.values()),
                lr=1e-3 if rate is None else rate,
                betas=(fit.momentum, 0.999),
                amsgrad=True,
                weight_decay=fit.weight_decay,
            )
        self.rates = torch.optim.lr_scheduler.LambdaLR(
            self.optimiser, lambda step: 1 - step / fit.steps
        )

    @classmethod
    def begin(cls, fit: TunedFit, run: Run) -> _State:
        """From zeros, or from the run's checkpoint."""
        zeros = TunedLens.untrained(run.model).tensors
        held = run.resumed()
        on_device = {
            name: held.get(name, zero).to(run.model.device).requires_grad_()
            for name, zero in zeros.items()
        }
        state = cls(fit, on_device)
        state._restore(held)
        return state

    def kept(self) -> dict[str, Tensor]:
        """All of it, as tensors by name."""
        known = optimiser_state(self.optimiser, self.parameters)
        return dict(self.parameters) | known | {"steps": torch.tensor(self.done)}

    def _restore(self, held: Mapping[str, Tensor]) -> None:
        if not held:
            return
        self.done = int(held["steps"])
        restore_optimiser(self.optimiser, self.parameters, held)
        self.rates.last_epoch = self.done
        for group, base in zip(self.optimiser.param_groups, self.rates.base_lrs, strict=True):
            group["lr"] = base * self.rates.lr_lambdas[0](self.done)


def add_gradients(
    parameters: Mapping[str, Tensor], states: Sequence[Tensor], readout: Readout, weight: float
) -> None:
    """Add the gradient of weight x the sum over places of KL(final || lens) to each `.grad`.

    One layer and one block of rows at a time; of a place's gradient only its d numbers at the
    translated state are kept, from which those of the parameters are one product a layer.

    Args:
        parameters: `weight` [L, d, d] and `bias` [L, d], with a `.grad` each.
        states: [N, d] of the layers 0..L.
        readout: the model's own last step.
        weight: of the sum.
    """
    matrix, bias = parameters["weight"].detach(), parameters["bias"].detach()
    inputs = [state.to(matrix) for state in states[:-1]]
    slopes = [torch.empty_like(state) for state in inputs]
    for rows in _rows(states[-1], readout):
        final = readout(states[-1][rows]).to(matrix.dtype).softmax(-1)
        for layer, state in enumerate(inputs):
            moved = torch.addmm(bias[layer], state[rows], matrix[layer].T).add_(state[rows])
            slopes[layer][rows] = _slope(moved.to(states[-1].dtype), final, readout)
    for layer, (state, slope) in enumerate(zip(inputs, slopes, strict=True)):
        for name, grad in (("weight", slope.T @ state), ("bias", slope.sum(0))):
            whole = parameters[name].grad
            assert whole is not None
            whole[layer].add_(grad, alpha=weight)


def _slope(translated: Tensor, final: Tensor, readout: Readout) -> Tensor:
    """[rows, d] gradient of KL(final || readout(translated)) at the translated states.

    At the logits it is the lens' probabilities minus the final ones.
    """
    translated.requires_grad_()
    logits = readout(translated)
    back = logits.detach().to(final.dtype).softmax(-1).sub_(final)
    (slope,) = torch.autograd.grad(logits, translated, back.to(logits.dtype))
    return slope.to(final.dtype)


def _rows(final: Tensor, readout: Readout) -> Iterator[slice]:
    """Blocks of rows: as many as the lens statistics take, and more where the vocabulary is small."""
    width = readout(final[:1]).shape[-1]
    step = max(PRODUCT_ROWS.get(final.device.type, PRODUCT_ROWS["cpu"]), LOGITS // width)
    return (slice(start, start + step) for start in range(0, len(final), step))


def _clip(parameters: Mapping[str, Tensor], most: float) -> None:
    grads = [p.grad.flatten(1) for p in parameters.values() if p.grad is not None]
    norm = torch.cat(grads, dim=1).norm(dim=1)
    scale = (most / norm.clamp_min(most)).to(norm)
    for grad in grads:
        grad.mul_(scale[:, None])


def _require_finite(parameters: Mapping[str, Tensor], step: int) -> None:
    for parameter in parameters.values():
        if parameter.grad is not None and not parameter.grad.isfinite().all():
            bad = (~parameter.grad.flatten(1).isfinite().all(1)).nonzero()[0]
            raise ModelError(
                f"tuned_lens: the gradient of layer {int(bad)} is not finite at step {step + 1}: the "
                "weights or the dtype overflow; try float32"
            )
