"""A model's mean cosine by layer against the theory: (beta, dt) fitted, and how far that holds.

The theory: tokens of one common cosine gamma move by `theory.equiangular_rate`, a layer being a step dt
of time. From each prompt's own measured gamma_0 it has two numbers to fit. What it predicts of prompts or
layers that the fit did not see stands beside a straight line from gamma_0 (one number), no change (none)
and the untrained twin's own curves (none). "Does not fit" is an answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from probes.dynamics.clock import moved
from probes.dynamics.field import Kernel
from workbench.errors import SettingError

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["Estimate", "Overlay", "overlay"]

Floats = NDArray[np.float64]
Held = Literal["prompts", "late"]

BETAS: Floats = np.concatenate([[0.0], np.geomspace(0.05, 20, 48)])
STEPS: Floats = np.concatenate([[0.0], np.geomspace(1e-3, 10, 96)])
FOLDS, DRAWS = 5, 1000
ENDS = (0.025, 0.975)
CLEAR = 1e-3  # a fall of the mean cosine below this says nothing


@dataclass(frozen=True)
class Estimate:
    """A number and the ends of its 95% interval over prompts, by resampling; None of one prompt."""

    value: float
    low: float | None
    high: float | None

    def __str__(self) -> str:
        ends = "" if self.low is None else f" ({self.low:.3g} to {self.high:.3g})"
        return f"{self.value:.3g}{ends}"


@dataclass(frozen=True, eq=False)
class Overlay:
    """What was fitted and how it holds.

    Attributes:
        measured: [prompts, layers+1] mean cosines.
        twin: the untrained twin's, or None.
        fitted: [prompts, layers+1] the theory's, fitted to all prompts (and the early layers, if late
            ones are held out), each from its own gamma_0.
        twins: of how many twins that is the mean.
        first: the layer of the first column, 0 for the embedding.
        held: what was held out of the fit that an error is of: "prompts" (five folds) or "late" layers.
        cut: the last layer that was fitted on, as `first` counts.
        beta, dt: fitted on a grid (beta 0 and 0.05 to 20 in steps of 14%, dt 0 and 0.001 to 10 in steps
            of 10%): a tie or an end of the grid shows as an interval that reaches it.
        errors: root mean square of predicted minus measured, on what was held out: of "theory", "line",
            "no change", and "twin" where there is one.
        gain: mean squared error of the straight line less the theory's, per prompt, held out; above 0
            where the theory is better.
        fits: whether the theory is better than each of the others, by a difference whose interval over
            prompts is clear of 0 (of one prompt: better at all), and the mean cosine nowhere clearly falls.
        verdict: that in words, with the reason.
    """

    measured: Floats
    twin: Floats | None
    fitted: Floats
    held: Held
    cut: int
    beta: Estimate
    dt: Estimate
    errors: dict[str, Estimate]
    gain: Estimate
    fits: bool
    verdict: str
    twins: int = 1
    first: int = 0

    def plot(self, theme: str = "light") -> go.Figure:
        """Measured, fitted and twin's curves by layer, the verdict above."""
        from probes.dynamics.overlay_figure import figure

        return figure(self, theme)

    def rows(self) -> list[dict[str, Any]]:
        """One row a prompt and layer."""
        prompts, layers = self.measured.shape
        return [
            {
                "prompt": prompt,
                "layer": self.first + layer,
                "mean_cosine": float(self.measured[prompt, layer]),
                "theory": float(self.fitted[prompt, layer]),
                "twin": None if self.twin is None else float(self.twin[prompt, layer]),
            }
            for prompt in range(prompts)
            for layer in range(layers)
        ]


def overlay(
    measured: ArrayLike,
    tokens: int,
    *,
    twin: ArrayLike | None = None,
    held: Held = "prompts",
    kernel: Kernel = "sa",
    seed: int = 0,
    twins: int = 1,
    first: int = 0,
) -> Overlay:
    """Fit (beta, dt) to the mean cosines of prompts by layer, and hold it to what it did not see.

    Args:
        measured: [prompts, layers+1] mean cosines from layer `first` on; above -1/(tokens-1), to 1.
        tokens: n of the law; the typical number of tokens of a prompt.
        twin: [prompts, layers+1] of an untrained twin on the same prompts, or the mean over `twins`.
        held: "prompts": each prompt is predicted by a fit to other prompts (five folds, fewer of fewer
            prompts). "late": the last third of the layers is predicted by a fit to those before.
        kernel: "sa" or "usa".
        seed: of the folds and of the resampling of prompts.
        twins: of how many twins `twin` is the mean, for the figure's words.
        first: the layer that the first column is of, 0 for the embedding; words and axes count from it.

    Raises:
        SettingError: arrays of other shapes, numbers that are no mean cosines, too little to hold out.
    """
    found, other = (
        _checked(measured, tokens, first),
        None if twin is None else np.asarray(twin, np.float64),
    )
    if other is not None and (other.shape != found.shape or not np.isfinite(other).all()):
        raise SettingError(
            f"twin has shape {other.shape}: expected finite numbers of {found.shape}"
        )
    random = np.random.default_rng(seed)
    cut = _cut(found, held)
    squares = _squares(found, cut, tokens, kernel)
    best = _best(squares.sum(0))
    predicted, line = _held_out(found, squares, tokens, held, cut, kernel, random)
    start = found[:, :1]
    others = {"line": line, "no change": np.broadcast_to(start, found.shape)}
    if other is not None:
        others["twin"] = other
    seen = slice(cut + 1, None) if held == "late" else slice(1, None)
    losses = {
        name: np.square(values - found)[:, seen].mean(-1)
        for name, values in {"theory": predicted, **others}.items()
    }
    draws = _draws(len(found), random)
    gains = {name: _mean(losses[name] - losses["theory"], draws) for name in others}
    fits, verdict = _judged(
        gains, _fall(found, draws, first), float(np.sqrt(losses["theory"].mean()))
    )
    drawn = [_best(total) for total in draws @ squares.reshape(len(found), -1)]
    return Overlay(
        measured=found,
        twin=other,
        fitted=_curves(start[:, 0], best, found.shape[1], tokens, kernel),
        held=held,
        cut=first + cut,
        beta=_estimate(best[0], [beta for beta, _ in drawn]),
        dt=_estimate(best[1], [dt for _, dt in drawn]),
        errors={name: _root(_mean(loss, draws)) for name, loss in losses.items()},
        gain=gains["line"],
        fits=fits,
        verdict=verdict,
        twins=twins,
        first=first,
    )


def _checked(measured: ArrayLike, tokens: int, first: int) -> Floats:
    found = np.asarray(measured, np.float64)
    if found.ndim != 2 or found.shape[1] < 3 or not len(found):
        raise SettingError(
            f"curves of shape {found.shape}: expected [prompts, layers+1], 2 layers or more"
        )
    if tokens < 2:
        raise SettingError(f"tokens is {tokens}: a mean cosine is of at least 2")
    least = -1 / (tokens - 1)
    bad = np.argwhere(~((found > least) & (found <= 1 + 1e-6)))
    if len(bad):
        raise SettingError(
            f"prompt {bad[0][0]}, layer {first + bad[0][1]} is no mean cosine of {tokens} tokens that move: "
            f"{found[tuple(bad[0])]}; expected above {least:.3g}, to 1"
        )
    return found


def _cut(found: Floats, held: str) -> int:
    """The last layer that is fitted on."""
    prompts, layers = len(found), int(found.shape[1]) - 1
    if held == "prompts":
        if prompts < 2:
            raise SettingError("one prompt leaves none to hold out: give more, or held='late'")
        return layers
    if held != "late":
        raise SettingError(f"held is {held!r}: expected prompts or late")
    return layers - max(1, layers // 3)


def _squares(found: Floats, cut: int, tokens: int, kernel: Kernel) -> Floats:
    """[prompts, betas, steps] sums over layers 1..cut of the theory's squared errors.

    One beta at a time: all curves of many prompts and layers would fill the memory.
    """
    times = STEPS[:, None] * np.arange(1.0, cut + 1)
    seen = found[:, None, 1 : cut + 1]
    each = (moved(found[:, 0], float(beta), times, tokens, kernel) - seen for beta in BETAS)
    return np.stack([np.square(error).sum(-1) for error in each], 1)


def _best(total: Floats) -> tuple[float, float]:
    at = int(np.argmin(total.ravel()))
    return float(BETAS[at // len(STEPS)]), float(STEPS[at % len(STEPS)])


def _curves(
    first: Floats, best: tuple[float, float], states: int, tokens: int, kernel: Kernel
) -> Floats:
    return moved(
        first, best[0], np.float64(best[1]) * np.arange(states, dtype=np.float64), tokens, kernel
    )


def _held_out(
    found: Floats,
    squares: Floats,
    tokens: int,
    held: str,
    cut: int,
    kernel: Kernel,
    random: np.random.Generator,
) -> tuple[Floats, Floats]:
    """[prompts, layers+1] of the theory and of a straight line, fitted to other prompts or layers."""
    prompts, states = found.shape
    fold = (
        random.permutation(prompts) % min(FOLDS, prompts)
        if held == "prompts"
        else np.zeros(prompts)
    )
    theory, line = np.empty_like(found), np.empty_like(found)
    for index in np.unique(fold):
        out = fold == index
        kept = ~out if held == "prompts" else out
        best = _best(squares[kept].sum(0))
        theory[out] = _curves(found[out, 0], best, states, tokens, kernel)
        layers = np.arange(1, cut + 1)
        rise = found[kept, 1 : cut + 1] - found[kept, :1]
        slope = (rise * layers).sum() / (len(rise) * np.square(layers).sum())
        line[out] = found[out, :1] + slope * np.arange(states)
    return theory, line


def _draws(prompts: int, random: np.random.Generator) -> Floats:
    """[draws, prompts] how often each prompt is drawn; none of one prompt."""
    if prompts < 2:
        return np.empty((0, prompts))
    return random.multinomial(prompts, np.full(prompts, 1 / prompts), DRAWS).astype(np.float64)


def _mean(values: Floats, draws: Floats) -> Estimate:
    return _estimate(float(values.mean()), draws @ values / len(values))


def _estimate(value: float, drawn: ArrayLike) -> Estimate:
    drawn = np.asarray(drawn)
    if not len(drawn):
        return Estimate(value, None, None)
    low, high = np.quantile(drawn, ENDS)
    return Estimate(value, float(low), float(high))


def _root(mean: Estimate) -> Estimate:
    low, high = (
        None if end is None else float(np.sqrt(max(end, 0))) for end in (mean.low, mean.high)
    )
    return Estimate(float(np.sqrt(mean.value)), low, high)


def _fall(found: Floats, draws: Floats, first: int) -> str:
    """In words, the largest fall of the mean cosine from one layer to the next; "" where none is clear.

    Clear: over resampled prompts, by the 2.5% quantile shared among the layers.
    """
    drops = found[:, :-1] - found[:, 1:]
    mean = drops.mean(0)
    sure = mean
    if len(draws):
        sure = np.quantile(draws @ drops / len(found), ENDS[0] / len(mean), axis=0)
    if sure.max() <= CLEAR:
        return ""
    layer = int(np.argmax(sure))
    return f"the mean cosine falls (by {mean[layer]:.3g} into layer {first + layer + 1}), as the law's cannot"


def _judged(gains: dict[str, Estimate], fall: str, error: float) -> tuple[bool, str]:
    """Whether it fits, and why not."""
    named = {"line": "a straight line", "no change": "no change", "twin": "the untrained twin"}
    beaten = [
        named[name]
        for name, gain in gains.items()
        if (gain.value if gain.low is None else gain.low) <= 0
    ]
    if not beaten and not fall:
        return True, f"fits: held-out error {error:.3g}, below {', '.join(named[k] for k in gains)}"
    reasons = (
        [f"held-out error {error:.3g} is not clearly below that of {', '.join(beaten)}"]
        if beaten
        else []
    )
    return False, f"does not fit: {'; '.join([*reasons, *([fall] if fall else [])])}"
