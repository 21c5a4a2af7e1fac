"""A bridge and a plain model over the same weights: wrap one without changing it, or unwrap one."""

from __future__ import annotations

import logging
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from itertools import chain
from typing import Any

from torch import nn

from workbench.errors import UnsupportedError

__all__ = ["bridged", "contained_import", "is_bridge", "unbridged"]

LIBRARY = "transformer_lens"
HOOKS = (
    "_backward_hooks",
    "_backward_pre_hooks",
    "_forward_hooks",
    "_forward_hooks_always_called",
    "_forward_hooks_with_kwargs",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
)


def is_bridge(model: Any) -> bool:
    """Whether `model` is a `TransformerBridge`; asking imports nothing."""
    kinds = type(model).__mro__
    return any(_of_library(kind) and kind.__name__ == "TransformerBridge" for kind in kinds)


def _of_library(kind: type) -> bool:
    return kind.__module__.split(".")[0] == LIBRARY


def bridged(hf: Any, name: str) -> Any:
    """A `TransformerBridge` on a copy of `hf` that shares its parameters and buffers.

    transformer-lens puts its own modules into the model that it wraps and switches it to eager
    attention; it does so to the copy, and `hf` stays as it is.

    Raises:
        UnsupportedError: transformer-lens does not know the architecture, or fails on it.
    """
    with contained_import():
        from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module
    architecture = type(hf).__name__
    try:
        copy = _sharing_copy(hf)
        return build_bridge_from_module(copy, architecture, hf_config=copy.config, model_name=name)
    except Exception as error:  # whatever an adapter trips over
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UnsupportedError(
            f"{name}: transformer-lens cannot wrap {architecture}: {reason}; load it with "
            "engine='torch'"
        ) from error


def _sharing_copy(hf: Any) -> Any:
    """Modules of its own on the tensors of `hf`, with the attention that shows its pattern."""
    tensors = {id(tensor): tensor for tensor in chain(hf.parameters(), hf.buffers())}
    copy = deepcopy(hf, tensors)
    for module in copy.modules():
        if hasattr(module, "config"):
            module.config._attn_implementation = "eager"
    return copy


@contextmanager
def contained_import() -> Iterator[None]:
    """Importing transformer-lens silences transformers' log and warnings: only for the import."""
    log = logging.getLogger("transformers")
    level = log.level
    try:
        with warnings.catch_warnings():
            yield
    finally:
        log.setLevel(level)


def unbridged(module: Any) -> Any:
    """The modules under a bridge, as the plain model: on the same tensors, without any hook.

    Raises:
        UnsupportedError: the model lies on several devices, for which its modules are wrapped.
    """
    inner = _inside(module)
    if getattr(inner, "hf_device_map", None):
        raise UnsupportedError(
            "a TransformerBridge over several devices: give the Hugging Face model that it was made of, "
            "with engine='transformer_lens'"
        )
    plain: Any = object.__new__(type(inner))
    plain.__dict__ = dict(inner.__dict__) | {hooks: OrderedDict() for hooks in HOOKS}
    plain.__dict__.pop("forward", None)  # an adapter's, which would run the bridge's modules
    children = inner._modules.items()
    plain._modules = {name: child and unbridged(child) for name, child in children}
    if isinstance(inner, nn.Linear) and "bias" in inner._buffers:
        _without_bridge_bias(plain)
    return plain


def _inside(module: Any) -> Any:
    """The module that a bridge's component wraps; any other as it is."""
    inner = getattr(module, "original_component", None) if _of_library(type(module)) else None
    return module if inner is None else _inside(inner)


def _without_bridge_bias(plain: Any) -> None:
    """The unembedding's bias that transformer-lens adds, a buffer of zeros, is not the model's."""
    if not plain._buffers["bias"].any():
        plain._buffers = {k: v for k, v in plain._buffers.items() if k != "bias"}
        plain._parameters = {**plain._parameters, "bias": None}
