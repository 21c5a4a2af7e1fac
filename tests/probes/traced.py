"""Made-up causal traces of any size, in the form of the real ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from probes.causal.roles import ROLES, role_of

SITES = ("resid_post", "mlp_out", "attn_out")
WORDS = ("The", " Eiffel", " Tower", " is", " in", " <b>", "\n", " Paris", " Rome")
SETTINGS = {
    "direction": "denoising",
    "metric": "probability",
    "window": 10,
    "corruption": "noise",
    "samples": 3,
    "noise": 3.0,
    "noise_std": 0.02,
    "sites": list(SITES),
}


@dataclass(frozen=True)
class Traced:
    """One prompt: its tokens, the ends of its subject (-1 for none), its group, what is odd of it."""

    length: int = 7
    subject: tuple[int, int] = (1, 2)
    group: int = 0
    correct: int = 1
    total: float = 0.8


FOUR = (
    Traced(),
    Traced(9, (0, 3), 0),
    Traced(6, (2, 2), 1, correct=0),
    Traced(8, (5, 7), 2, total=0.0),
)


def traced(
    prompts: Sequence[Traced] = (Traced(),),
    *,
    layers: int = 6,
    samples: int = 3,
    seed: int = 0,
    strength: float = 1.0,
    **settings: Any,
) -> xr.Dataset:
    """Effects that are largest where the literature has them, and noise; `strength` scales them."""
    draw = np.random.default_rng(seed)
    chosen = SETTINGS | {"samples": samples} | settings
    lengths = [one.length for one in prompts]
    prompt = np.repeat(np.arange(len(prompts)), lengths)
    position = np.concatenate([np.arange(length) for length in lengths])
    role = np.concatenate([_roles(one) for one in prompts])
    layer = np.arange(layers + 1)
    corrupted = 0.1 + 0.02 * draw.standard_normal((len(prompts), samples))
    total = np.array([one.total for one in prompts])
    share = _shares(role, layer) + 0.02 * draw.standard_normal((len(role), len(SITES), layers + 1))
    share[:, 1:, 0] = np.nan  # nothing is added to the stream before the first block
    effect = strength * (share * total[prompt][:, None, None])[..., None]
    base = corrupted[prompt][:, None, None, :]
    score = base + effect + 0.01 * draw.standard_normal((*share.shape, samples))
    mean = (score - base).mean(-1)
    error = (score - base).std(-1, ddof=1) / samples**0.5 if samples > 1 else mean * np.nan
    with np.errstate(invalid="ignore", divide="ignore"):
        normalised = np.where(total[prompt] == 0, np.nan, 1 / total[prompt])[:, None, None] * mean
    unit, cell = "probability", ("place", "site", "layer")
    clean = corrupted.mean(1) + total
    correct = np.array([one.correct for one in prompts])
    variables = {
        "score": ((*cell, "sample"), score, unit),
        "effect": (cell, mean, unit),
        "stderr": (cell, error, unit),
        "normalised": (cell, normalised, "share"),
        "clean": ("place", clean[prompt], unit),
        "corrupted": (("place", "sample"), corrupted[prompt], unit),
        "total": ("place", total[prompt], unit),
        "top_id": ("place", np.where(correct == 0, 8, 7)[prompt], "token id"),
        "target_id": ("place", np.full(len(role), 7), "token id"),
        "correct": ("place", correct[prompt], "truth"),
        "group": ("place", np.array([one.group for one in prompts])[prompt], "number"),
        "role": ("place", role, "role"),
        "vocabulary": ("token_id", np.array(WORDS, dtype=object), "text"),
    }
    coords = {
        "site": list(SITES),
        "layer": layer,
        "sample": np.arange(samples),
        "prompt": ("place", np.array([f"p{n}" for n in range(len(prompts))])[prompt]),
        "position": ("place", position),
        "token": ("place", np.array(WORDS, dtype=object)[position % len(WORDS)]),
        "token_id": np.arange(len(WORDS)),
    }
    data = xr.Dataset(
        {name: (dims, values, {"unit": unit}) for name, (dims, values, unit) in variables.items()},
        coords,
    )
    made_of = {"settings": chosen, "model": {"name": "toy", "n_layers": layers}}
    return data.assign_attrs(instrument="causal_trace", provenance=json.dumps(made_of))


def _roles(one: Traced) -> Any:
    first, last = one.subject
    if first < 0:
        return np.full(one.length, -1)
    return np.array([role_of(i, one.length, first, last) for i in range(one.length)])


def _shares(role: Any, layer: Any) -> Any:
    """[place, site, layer]: early at the last subject token, mostly MLP; late at the last token."""
    early, late = (
        np.exp(-(((layer - at * layer[-1]) / (0.2 * layer[-1])) ** 2)) for at in (0.35, 0.85)
    )
    subject, last = (role == ROLES.index(name) for name in ("last_subject", "last"))
    sizes = np.array([[0.5, 0.4, 0.05], [0.8, 0.05, 0.4]])
    return sum(
        here[:, None, None] * size[None, :, None] * curve
        for here, size, curve in ((subject, sizes[0], early), (last, sizes[1], late))
    )
