"""Canonical sites: where in the network a tensor is read or replaced.

Layers run over 0..L. Layer 0 is the embedding; the state after block l, and everything inside
block l, carries l = 1..L (papers that count blocks from 0 call it block l - 1).

Inside attention, for a place of the batch:
    q: [heads, d_head], k and v: [key heads, d_head], as they enter the product of queries and keys:
        after rotary and norms (and after the scale, where a family scales its queries first); a
        group of heads that shares one key and value has it once.
    pattern: [heads, keys], the weights that the place gives to the positions of its own prompt; a
        column a position, as many as the batch's longest prompt has, 0 beyond the prompt's end. A
        row sums to 1, or to less where the family lets attention go to a sink that is no token
        (gpt_oss).
    z: [heads, d_head], each head's weighted mean of v, which the output projection reads.
    cross_attn_out, cross_pattern, cross_z: the same of a decoder's attention to its encoder, whose
        keys are the positions of the prompt.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from workbench.errors import SettingError
from workbench.models.aliases import from_hook

__all__ = [
    "ATTENTION_SITES",
    "BLOCK_SITES",
    "CROSS_SITES",
    "PRODUCT_SITES",
    "SITES",
    "Site",
    "SiteRequest",
    "expand_sites",
    "site_layers",
    "site_of",
]

RESIDUAL_SITES = ("resid_pre", "resid_mid", "resid_post")
BLOCK_SITES = (*RESIDUAL_SITES, "attn_out", "mlp_out", "mlp_act")
PRODUCT_SITES = ("q", "k", "v", "pattern")
ATTENTION_SITES = (*PRODUCT_SITES, "z")
CROSS_SITES = ("cross_attn_out", "cross_pattern", "cross_z")
SITES = ("embed", *BLOCK_SITES, *ATTENTION_SITES, *CROSS_SITES, "final_norm", "logits")


class Site(NamedTuple):
    """One tensor of the network: a site's name and its layer."""

    name: str
    layer: int

    def __str__(self) -> str:
        return f"{self.name}, layer {self.layer}"


SiteRequest = str | tuple[str, int] | Site
"""A site's name (every layer it has), a (name, layer) pair, or transformer-lens' name of its hook."""


def site_layers(name: str, n_layers: int) -> range:
    """The layers at which site `name` exists in a model of `n_layers` blocks."""
    if name not in SITES:
        raise SettingError(f"unknown site {name!r}: expected one of {', '.join(SITES)}")
    if name == "embed":
        return range(0, 1)
    if name in ("final_norm", "logits"):
        return range(n_layers, n_layers + 1)
    return range(0 if name == "resid_post" else 1, n_layers + 1)


def expand_sites(requests: str | Iterable[SiteRequest], n_layers: int) -> tuple[Site, ...]:
    """Spell out `requests` as sites, in order and without repeats.

    Raises:
        SettingError: an unknown name, or a layer at which the site does not exist.
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


def site_of(request: SiteRequest) -> Site:
    """The one site that `request` names.

    Raises:
        SettingError: a name without a layer, or a hook that is no canonical site.
    """
    if not isinstance(request, str):
        return Site(*request)
    name, layer = _named(request)
    if layer is None:
        raise SettingError(f"site {request!r} names no layer: expected a (name, layer) pair")
    return Site(name, layer)


def _named(request: SiteRequest) -> tuple[str, int | None]:
    if isinstance(request, str):
        return from_hook(request) or (request, None)
    if isinstance(request, tuple) and len(request) == 2 and isinstance(request[1], int):
        return request
    raise SettingError(f"site {request!r}: expected a name or a (name, layer) pair, in a list")


def _span(layers: range) -> str:
    return str(layers[0]) if len(layers) == 1 else f"{layers[0]}..{layers[-1]}"
