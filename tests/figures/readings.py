"""Made-up logit-lens results of any size, in the form of the real ones."""

from __future__ import annotations

import numpy as np
import xarray as xr

HARD = ("<b>bold</b>", "\n", "\t", "", "日本語日本語", " $x$ &amp; %{y}", " internationalisation")


def reading(layers: int = 6, positions: int = 12, k: int = 5, target: bool = True) -> xr.Dataset:
    """A result with one prompt at two sites; its first tokens are hard to show."""
    draw = np.random.default_rng(0)
    words = np.array([*HARD, *(f" word{n}" for n in range(60))], dtype=object)
    shape = (2, layers + 1, positions)
    cell = ("site", "layer", "place")
    ids = np.argsort(draw.random((*shape, len(words))), axis=-1)[..., :k]
    chances = -np.sort(-draw.dirichlet(np.ones(k + 1), shape)[..., :k], axis=-1)
    states = np.array([1, np.nan])[:, None, None]
    followed = draw.random(shape) if target else np.full(shape, np.nan)
    token = np.arange(positions) % len(words)
    data = {
        "top_id": ((*cell, "k"), ids),
        "top_logprob": ((*cell, "k"), np.log(chances)),
        "norm": (cell, 1 + draw.random(shape)),
        "target_logprob": (cell, np.log(followed)),
        "target_rank": (cell, np.ceil(1 / followed)),
        "foil_logprob": (cell, np.full(shape, np.nan)),
        "foil_rank": (cell, np.full(shape, np.nan)),
        "target_id": ("place", np.full(positions, 9 if target else -1)),
        "foil_id": ("place", np.full(positions, -1)),
        "vocabulary": ("token_id", words),
    } | {name: (cell, draw.random(shape) * states) for name in ("entropy", "kl", "js")}
    data["top_id"][1][1, 0] = -1
    data["top_logprob"][1][1, 0] = np.nan
    coords = {
        "site": ["resid_post", "mlp_out"],
        "layer": np.arange(layers + 1),
        "k": np.arange(1, k + 1),
        "prompt": ("place", np.zeros(positions, int)),
        "position": ("place", np.arange(positions)),
        "token": ("place", words[token]),
        "token_id": np.arange(len(words)),
    }
    return xr.Dataset(data, coords)
