"""What both instruments of the room take: how prompts are corrupted, and how runs are scored."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self, get_args

from probes.causal.contrast import Contrast
from probes.causal.corruption import (
    checked_noise,
    cut_words,
    settled_corruption,
    subject_std,
    whole_subject,
)
from probes.causal.effects import Direction
from probes.causal.metrics import METRICS, Metric, require_goal, settled_metric
from probes.circuits.pair import Pair
from probes.settings import one_of, whole_number
from workbench.errors import SettingError
from workbench.instrument import Paced
from workbench.models.protocol import Model
from workbench.models.tokens import EncodedPrompt
from workbench.prompts import Prompt

__all__ = ["Approximating", "Corrupting"]

MOST_STEPS = 256
CHOICES = {
    "direction": get_args(Direction),
    "corruption": ("auto", "noise", "replace"),
}


@dataclass(frozen=True)
class Corrupting(Paced):
    """Settings of an instrument that measures between a prompt's clean and corrupted runs."""

    metric: Literal["auto", "probability", "logprob", "logit_difference", "kl"] = "auto"
    direction: Direction = "denoising"
    corruption: Literal["auto", "noise", "replace"] = "auto"
    noise: float = 3.0
    noise_std: float | None = None
    samples: int = 10
    seed: int = 0

    metrics: ClassVar[tuple[Metric, ...]] = METRICS

    def __post_init__(self) -> None:
        for field, known in (("metric", ("auto", *self.metrics)), *CHOICES.items()):
            one_of(self.name, field, getattr(self, field), known)
        checked_noise(self.noise, self.samples, self.seed, self.name, self.noise_std)

    def settled(self, model: Model, prompts: Iterable[Prompt]) -> Self:
        """Fill in corruption, metric and the noise of these subjects.

        auto is logit_difference where every prompt has a foil, else logprob; replace where every prompt
        has a corrupted text, else noise.
        """
        every, noise_std = list(prompts), self.noise_std
        metric = settled_metric(self.metric, every, "logprob")
        corruption = settled_corruption(self.corruption, every, self.name)
        if corruption == "noise" and noise_std is None:
            noise_std = subject_std(model, every)
        chosen: dict[str, Any] = {"metric": metric, "corruption": corruption}
        found = replace(self, **chosen, noise_std=noise_std)
        return self if found == self else found

    def accept(self, prompt: EncodedPrompt) -> None:
        """Refuse a prompt that cannot be scored, or that nothing corrupts."""
        require_goal(prompt, self._scored, self.name)
        if self.corruption == "noise":
            whole_subject(prompt)

    def remarks_of(self, prompts: Sequence[EncodedPrompt]) -> Sequence[str]:
        """Where noise is on a part of a word."""
        return cut_words(prompts) if self.corruption == "noise" else ()

    @property
    def _scored(self) -> Metric:
        """The metric, once it is settled."""
        assert self.metric != "auto"
        return self.metric

    def contrast(self, model: Model, prompt: EncodedPrompt) -> Contrast:
        """The clean and the corrupted inputs of one prompt."""
        if self.corruption == "replace":
            return Contrast.by_text(model, [prompt], self.name)
        assert self.noise_std is not None
        std = self.noise * self.noise_std
        return Contrast.by_noise(model, [prompt], std=std, samples=self.samples, seed=self.seed)

    def pair(self, model: Model, prompt: EncodedPrompt) -> Pair:
        """Its runs."""
        return Pair.of(model, self.contrast(model, prompt), self._scored)


@dataclass(frozen=True)
class Approximating(Corrupting):
    """Settings of an instrument that takes effects from a gradient."""

    metric: Literal["auto", "logprob", "logit_difference", "kl"] = "auto"
    steps: int = 0

    metrics: ClassVar[tuple[Metric, ...]] = ("logprob", "logit_difference", "kl")

    def __post_init__(self) -> None:
        if self.metric == "probability":  # type: ignore[comparison-overlap]
            raise SettingError(
                f"{self.name}: metric is probability, which bends too much for a gradient to say what "
                "patching does: take logprob, logit_difference or kl"
            )
        super().__post_init__()
        whole_number(self.name, "steps", self.steps, 0, MOST_STEPS)
        if self.metric == "kl" and self.direction == "noising" and self.steps == 0:
            raise SettingError(
                f"{self.name}: KL is least at the clean run, where its gradient is 0 everywhere: give steps "
                "above 0, or direction=denoising"
            )
