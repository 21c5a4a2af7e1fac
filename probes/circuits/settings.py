"""What both instruments of the room take: how prompts are corrupted, and how runs are scored."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, Self, get_args

from probes.causal.contrast import Contrast
from probes.causal.corruption import checked_noise, counterfactual, subject_std
from probes.causal.effects import Direction
from probes.causal.metrics import Metric, require_goal
from probes.circuits.pair import Pair
from workbench.errors import SettingError
from workbench.instrument import Driving
from workbench.models.protocol import Model
from workbench.models.tokens import EncodedPrompt
from workbench.prompts import Prompt

__all__ = ["Corrupting", "whole_number"]

Scored = Literal["auto", "logprob", "logit_difference", "kl"]
MOST_STEPS = 256


@dataclass(frozen=True)
class Corrupting(Driving):
    """Settings of an instrument that measures between a prompt's clean and corrupted runs.

    The corrupted run is that of the prompt's corrupted text where it has one, else of the prompt with
    noise on its subject.
    """

    metric: Scored = "auto"
    direction: Direction = "denoising"
    steps: int = 0
    noise: float = 3.0
    samples: int = 10
    seed: int = 0
    std: float | None = None

    def __post_init__(self) -> None:
        if self.metric == "probability":  # type: ignore[comparison-overlap]
            raise SettingError(
                f"{self.name}: metric is probability, which bends too much for a gradient to say what "
                "patching does: take logprob, logit_difference or kl"
            )
        for field, known in (("metric", get_args(Scored)), ("direction", get_args(Direction))):
            if getattr(self, field) not in known:
                raise SettingError(
                    f"{self.name}: {field} is {getattr(self, field)!r}: expected one of {', '.join(known)}"
                )
        whole_number(self.name, "steps", self.steps, 0, MOST_STEPS)
        checked_noise(self.noise, self.samples, self.seed, self.name)
        if self.std is not None:
            checked_noise(self.std, self.samples, self.seed, self.name)
        if self.metric == "kl" and self.direction == "noising" and self.steps == 0:
            raise SettingError(
                f"{self.name}: KL is least at the clean run, where its gradient is 0 everywhere: give steps "
                "above 0, or direction=denoising"
            )

    def settled(self, model: Model, prompts: Iterable[Prompt]) -> Self:
        """Fill in the metric and the size of the noise; refuse corrupted texts that do not fit.

        logit_difference where every prompt has a foil, else logprob; of noise, `noise` standard
        deviations of the token embeddings of the set's subjects.
        """
        prompts, metric, std = list(prompts), self.metric, self.std
        if metric == "auto":
            every = all(prompt.foil is not None for prompt in prompts)
            metric = "logit_difference" if every else "logprob"
        for prompt in prompts:
            if prompt.corrupted is not None:
                counterfactual(model, model.encode(prompt, long_targets=True), self.name)
        if std is None and any(prompt.corrupted is None for prompt in prompts):
            std = self.noise * subject_std(model, prompts)
        return replace(self, metric=metric, std=std)

    def accept(self, prompt: EncodedPrompt) -> None:
        """Refuse a prompt that cannot be scored, or that nothing corrupts."""
        require_goal(prompt, self._scored, self.name)
        if prompt.prompt.corrupted is None:
            _ = prompt.subject

    @property
    def _scored(self) -> Metric:
        """The metric, once it is settled."""
        return "logprob" if self.metric == "auto" else self.metric

    def pair(self, model: Model, prompt: EncodedPrompt) -> Pair:
        """The runs of one prompt."""
        if prompt.prompt.corrupted is not None:
            contrast = Contrast.by_text(model, [prompt], self.name)
        else:
            assert self.std is not None
            contrast = Contrast.by_noise(
                model, [prompt], std=self.std, samples=self.samples, seed=self.seed
            )
        return Pair.of(model, contrast, self._scored)


def whole_number(who: str, field: str, value: object, least: int, most: int | None = None) -> None:
    """Refuse a setting that is no whole number within its ends.

    Raises:
        SettingError: it is none.
    """
    if type(value) is not int or value < least or (most is not None and value > most):
        ends = f"at least {least}" if most is None else f"{least} to {most}"
        raise SettingError(f"{who}: {field} is {value!r}: expected a whole number, {ends}")
