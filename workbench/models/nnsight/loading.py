"""Loading a model that stays on NDIF: its configuration and tokenizer come here, no weights do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from workbench.atlas import MODELS
from workbench.errors import ModelError, UnsupportedError
from workbench.models.families import family_of
from workbench.models.nnsight.contained import is_nnsight
from workbench.models.nnsight.ndif import ndif_key
from workbench.models.nnsight.remote import NdifModel
from workbench.models.pretrained import described

__all__ = ["ndif_model"]


def ndif_model(
    model: Any,
    tokenizer: Any = None,
    *,
    revision: str | None = None,
    trust_remote_code: bool = False,
    seconds: float = 600.0,
) -> NdifModel:
    """A model on NDIF, by its hub name or as an nnsight model that the caller holds.

    Raises:
        ModelError: no key for NDIF (found out before any request is made), or no such model.
        UnsupportedError: a model that NDIF cannot have.
    """
    ndif_key()
    if is_nnsight(model):
        return _held(model, tokenizer, seconds)
    if not isinstance(model, str) or model in MODELS or Path(model).expanduser().exists():
        raise UnsupportedError(
            f"remote=True: NDIF serves models of the hub, and {_named(model)} is none: give the hub name of "
            "one, or load it without remote"
        )
    config, tokenizer, _, _ = described(model, revision, trust_remote_code)
    return NdifModel(
        _skeleton(config, trust_remote_code),
        tokenizer,
        name=model,
        revision=revision,
        seconds=seconds,
    )


def _held(model: Any, tokenizer: Any, seconds: float) -> NdifModel:
    tokenizer = getattr(model, "tokenizer", None) if tokenizer is None else tokenizer
    name = getattr(model, "repo_id", None)
    if not name or tokenizer is None:
        raise ModelError(
            "the nnsight model has no hub name or no tokenizer: load it by its hub name"
        )
    if model._edits or getattr(model, "peft", None):
        raise UnsupportedError(
            "the nnsight model has edits or an adapter of its own, which would not be sent to NDIF: load it "
            "by its hub name"
        )
    return NdifModel(model._module, tokenizer, name=name, revision=model.revision, seconds=seconds)


def _skeleton(config: Any, trust_remote_code: bool) -> Any:
    """The model's parts, without weights."""
    import transformers

    auto = getattr(transformers, family_of(config).auto)
    with torch.device("meta"):
        return auto.from_config(config, trust_remote_code=trust_remote_code)


def _named(model: Any) -> str:
    return repr(model) if isinstance(model, str | Path) else f"a {type(model).__name__} in memory"
