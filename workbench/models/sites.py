"""Canonical sites: where in the network a tensor is read or replaced.

Layers run over 0..L. Layer 0 is the embedding; the state after block l, and everything inside
block l, carries l = 1..L (papers that count blocks from 0 call it block l - 1).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from workbench.errors import SettingError, UnsupportedError

__all__ = ["ATTENTION_SITES", "BLOCK_SITES", "SITES", "Site", "SiteRequest", "expand_sites"]

RESIDUAL_SITES = ("resid_pre", "resid_mid", "resid_post")
BLOCK_SITES = (*RESIDUAL_SITES, "attn_out", "mlp_out", "mlp_act")
ATTENTION_SITES = ("q", "k", "v", "pattern", "z")
SITES = ("embed", *BLOCK_SITES, *ATTENTION_SITES, "final_norm", "logits")


class Site(NamedTuple):
    """One tensor of the network: a site's name and its layer."""

    name: str
    layer: int

    def __str__(self) -> str:
        return f"{self.name}, layer {self.layer}"


SiteRequest = str | tuple[str, int] | Site
"""A site's name (every layer it has) or a (name, layer) pair."""


def site_layers(name: str, n_layers: int) -> range:
    """The layers at which site `name` exists in a model of `n_layers` blocks."""
    if name not in SITES:
        raise SettingError(f"unknown site {name!r}: expected one of {', '.join(SITES)}")
    if name in ATTENTION_SITES:
        raise UnsupportedError(
            f"site {name!r} is not read by the torch engine yet: use attn_out for what attention adds"
        )
    if name == "embed":
        return range(0, 1)
    if name in ("final_norm", "logits"):
        return range(n_layers, n_layers + 1)
    return range(0 if name == "resid_post" else 1, n_layers + 1)


def expand_sites(requests: str | Iterable[SiteRequest], n_layers: int) -> tuple[Site, ...]:
    """Spell out `requests` as sites, in order and without repeats.

    Raises:
        SettingError: an unknown name, or a layer at which the site does not exist.
        UnsupportedError: a site that the engine does not read.
    """
    if isinstance(requests, str):
        requests = (requests,)
    found: dict[Site, None] = {}
    for request in requests:
        name, wanted = _named(request)
        layers = site_layers(name, n_layers)
        if wanted is not None and wanted not in layers:
            raise SettingError(
                f"{name} has no layer {wanted}: expected {_span(layers)} (this model has {n_layers} "
                "blocks; layer 0 is the embedding)"
            )
        for layer in layers if wanted is None else (wanted,):
            found[Site(name, layer)] = None
    return tuple(found)


def _named(request: SiteRequest) -> tuple[str, int | None]:
    if isinstance(request, str):
        return request, None
    if isinstance(request, tuple) and len(request) == 2 and isinstance(request[1], int):
        return request
    raise SettingError(f"site {request!r}: expected a name or a (name, layer) pair, in a list")


def _span(layers: range) -> str:
    return str(layers[0]) if len(layers) == 1 else f"{layers[0]}..{layers[-1]}"
