"""What a `cfg.json` in SAELens' format says of an SAE; all that changes a number, or a refusal by name.

Fields of the format as SAELens 6 writes it, and those of older folders, which lie flat beside the rest
and say some of it otherwise (https://github.com/jbloomAus/SAELens).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, TypeVar, cast, get_args

import torch

from workbench.errors import SettingError, UnsupportedError
from workbench.models.sites import BLOCK_SITES, Site, site_of

__all__ = ["ARCHITECTURES", "OF_D_MODEL", "SITES", "Architecture", "Config", "Norm"]

Architecture = Literal["standard", "gated", "topk", "jumprelu"]
Norm = Literal["none", "constant_norm_rescale", "layer_norm"]
Named = TypeVar("Named", bound=str)
ARCHITECTURES: tuple[Architecture, ...] = get_args(Architecture)
NORMS: tuple[Norm, ...] = get_args(Norm)
SITES = (*BLOCK_SITES, "z")
OF_D_MODEL = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
"""Sites that are of the residual stream, or are added to it."""

DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
OLD_NAMES = {
    "hook_point": "hook_name",
    "hook_point_head_index": "hook_head_index",
    "activation_fn_str": "activation_fn",
}
CENTRED = "center_writing_weights"
LOADED = "model_from_pretrained_kwargs"
WITHOUT_EFFECT = (CENTRED, "fold_ln", "center_unembed", "n_devices", "device", "torch_dtype")
"""Of `LOADED`: what leaves the states at our sites as they are, or is honoured."""


@dataclass(frozen=True)
class Config:
    """How an SAE reads states.

    Attributes:
        d_in, d_sae: width of its states, and how many latents it has.
        dtype: what its tensors are rounded to.
        k: of top-k: the most latents of one state.
        rescale: of top-k: whether latents are chosen, and measured, times their decoder's norm.
        centred: whether the decoder's bias is taken from the state first.
        norm: what is done to each state before that, and undone after.
        site: what it reads.
        mean_free: whether its states have no mean over coordinates: those of the residual stream, and
            what is added to it, in a model that transformer-lens has centred
            (`center_writing_weights`).
        mean_said: whether the folder says how its model was loaded; older ones do not.
        opening: whether its texts began with the tokenizer's BOS; None where it does not say.
        model_name: of the model that it was fitted on; None where it does not say.
    """

    architecture: Architecture
    d_in: int
    d_sae: int
    dtype: torch.dtype
    k: int
    rescale: bool
    centred: bool
    norm: Norm
    site: Site
    mean_free: bool
    mean_said: bool
    opening: bool | None
    model_name: str | None

    @classmethod
    def of(cls, cfg: Mapping[str, Any], called: str) -> Self:
        """Of the content of a cfg.json; errors begin with `called`.

        Raises:
            UnsupportedError: an architecture, a norm or another field that is not honoured.
            SettingError: a field is missing, or has no sense.
        """
        flat = {OLD_NAMES.get(name, name): value for name, value in cfg.items()}
        flat |= flat.pop("metadata", None) or {}
        _refuse(flat, called)
        architecture = _architecture(flat)
        return cls(
            architecture=_one_of(architecture, ARCHITECTURES, "architecture", called),
            d_in=_size(flat, "d_in", called),
            d_sae=_size(flat, "d_sae", called),
            dtype=_dtype(flat, called),
            k=_k(flat, called) if architecture == "topk" else 0,
            rescale=bool(flat.get("rescale_acts_by_decoder_norm", False)),
            centred=bool(flat.get("apply_b_dec_to_input", True)),
            norm=_norm(flat, called),
            site=(site := _site(flat, called)),
            mean_free=site.name in OF_D_MODEL and bool(_loaded(flat).get(CENTRED)),
            mean_said=flat.get(LOADED) is not None,
            opening=flat.get("prepend_bos"),
            model_name=flat.get("model_name"),
        )


def _architecture(flat: Mapping[str, Any]) -> str:
    """Older folders call top-k a standard SAE with another activation."""
    named = str(flat.get("architecture", "standard"))
    return "topk" if named == "standard" and flat.get("activation_fn") == "topk" else named


def _refuse(flat: Mapping[str, Any], called: str) -> None:
    """What would change numbers and is not honoured."""
    activation = flat.get("activation_fn")
    if activation not in (None, "relu", "topk"):
        raise UnsupportedError(f"{called}: activation_fn is {activation!r}: expected relu, or topk")
    named = flat.get("architecture", "standard")
    if activation == "topk" and named not in ("standard", "topk"):
        raise UnsupportedError(f"{called}: activation_fn is 'topk' of a {named} SAE: expected relu")
    if flat.get("hook_head_index") is not None:
        raise UnsupportedError(
            f"{called}: it reads head {flat['hook_head_index']} alone: expected all heads of a site"
        )
    if flat.get("hook_name_out") is not None:
        raise UnsupportedError(
            f"{called}: a transcoder: expected an SAE, which gives back its input"
        )
    for name, value in _loaded(flat).items():
        if value and name not in WITHOUT_EFFECT:
            raise UnsupportedError(
                f"{called}: its model was loaded with {name}={value!r}, which changes states: expected "
                f"none but {', '.join(WITHOUT_EFFECT)}"
            )


def _loaded(flat: Mapping[str, Any]) -> Mapping[str, Any]:
    """How transformer-lens loaded the model that the SAE was fitted on."""
    return flat.get(LOADED) or {}


def _norm(flat: Mapping[str, Any], called: str) -> Norm:
    given = flat.get("normalize_activations") or "none"
    if given is True or given == "expected_average_only_in":
        raise UnsupportedError(
            f"{called}: normalize_activations is {given!r}, whose factor the folder does not hold: "
            "save it with the factor folded into the weights"
        )
    return _one_of(given, NORMS, "normalize_activations", called)


def _site(flat: Mapping[str, Any], called: str) -> Site:
    hook = flat.get("hook_name")
    if not isinstance(hook, str):
        raise SettingError(f"{called}: no hook_name: expected transformer-lens' name of its site")
    try:
        site = site_of(hook)
    except SettingError as error:
        raise UnsupportedError(f"{called}: {error}") from None
    _one_of(site.name, SITES, "site", called)
    reshaped = flat.get("reshape_activations") or ("hook_z" if site.name == "z" else "none")
    if reshaped != "none" and (reshaped, site.name) != ("hook_z", "z"):
        raise UnsupportedError(f"{called}: reshape_activations is {reshaped!r} at {site}")
    if site.name == "z" and reshaped == "none":
        raise UnsupportedError(
            f"{called}: reshape_activations is 'none' at {site}: expected hook_z, all heads together"
        )
    return site


def _one_of(given: Any, known: tuple[Named, ...], name: str, called: str) -> Named:
    if given not in known:
        raise UnsupportedError(f"{called}: {name} {given!r}: expected one of {', '.join(known)}")
    return cast(Named, given)


def _size(flat: Mapping[str, Any], name: str, called: str) -> int:
    value = flat.get(name)
    if type(value) is not int or value < 1:
        raise SettingError(f"{called}: {name} is {value!r}: expected a whole number, at least 1")
    return value


def _k(flat: Mapping[str, Any], called: str) -> int:
    old = (flat.get("activation_fn_kwargs") or {}).get("k")
    k = _size({"k": flat.get("k", old)}, "k", called)
    if k > _size(flat, "d_sae", called):
        raise SettingError(f"{called}: k is {k}: expected at most d_sae, {flat['d_sae']}")
    return k


def _dtype(flat: Mapping[str, Any], called: str) -> torch.dtype:
    name = str(flat.get("dtype", "float32")).removeprefix("torch.")
    if name not in DTYPES:
        raise UnsupportedError(f"{called}: dtype {name!r}: expected one of {', '.join(DTYPES)}")
    return DTYPES[name]
