"""Tidy rows of a span trace: one a span that was not split, single tokens among them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from probes.circuits.reading import finite, normalised, of_prompt, settings_of

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["rows", "spans_of"]

WHOLE = ("clean", "corrupted", "block_tokens", "grid_block_tokens")


def rows(data: xr.Dataset) -> Iterator[dict[str, Any]]:
    """Rows with keys prompt, site, layer, position and last (the span's ends), token, single, effect, ...

    `token` is the text of all the span's tokens, and `single` whether it is one; effect and stderr are of
    the span as a whole.
    """
    settings = settings_of(data)
    for prompt in dict.fromkeys(data["prompt"].values.tolist()):
        one = of_prompt(data, prompt)
        whole = {name: one[name].values[0].item() for name in WHOLE}
        tokens = [str(token) for token in one["token"].values]
        for site in one["site"].values.tolist():
            for layer in one["layer"].values.tolist():
                for first, last, effect, stderr in spans_of(one.sel(site=site, layer=layer)):
                    yield {
                        "prompt": prompt,
                        "site": site,
                        "layer": layer,
                        "position": first,
                        "last": last,
                        "token": "".join(tokens[first : last + 1]),
                        "single": first == last,
                        "effect": finite(effect),
                        "stderr": finite(stderr),
                        "normalised": normalised(
                            effect, whole["clean"] - whole["corrupted"], settings
                        ),
                        **whole,
                    }


def spans_of(line: xr.Dataset) -> Iterator[tuple[int, int, float, float]]:
    """First and last position, effect and standard error of each span of a prompt's site and layer."""
    first, last = (line[name].values for name in ("span_first", "span_last"))
    for at in np.flatnonzero(first == line["position"].values).tolist():
        effect, stderr = (float(line[name].values[at]) for name in ("span_effect", "span_stderr"))
        yield int(first[at]), int(last[at]), effect, stderr
