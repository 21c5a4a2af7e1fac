"""`load`: a hub name, a local folder, a model in memory, or nothing (the bundled model)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from workbench.errors import ModelError, UnsupportedError
from workbench.models.adapter_files import (
    AdapterSource,
    add_adapters,
    require_adapters,
    without_wrapper,
)
from workbench.models.checks import check
from workbench.models.engine import Engine
from workbench.models.engines import Remote, engine_class, library_of
from workbench.models.pretrained import Placement, from_name

__all__ = ["load"]


def load(
    model: Any = None,
    tokenizer: Any = None,
    *,
    engine: str | None = None,
    dtype: torch.dtype | str | None = None,
    device: Placement = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    adapter: AdapterSource | None = None,
    remote: Remote = False,
    remote_seconds: float = 600.0,
) -> Engine:
    """Load a language model and check that its sites mean what they say.

    Args:
        model: nothing or "atlas" / "atlas-bag" for the bundled models, a Hugging Face hub name, a
            folder written by `save_pretrained`, a Hugging Face model in memory, or a
            `TransformerBridge` or nnsight model that the caller holds.
        tokenizer: needed with a Hugging Face model in memory; otherwise in the place of the one
            that comes with the model.
        engine: "torch", "transformer_lens" or "nnsight"; where None, the library of the model that
            is given, and torch otherwise.
        dtype: of the weights, by name or as torch's; as stored where None (float32 for the
            bundled models). A model in memory keeps its own.
        device: CUDA where present and CPU otherwise, where None; "auto" spreads the blocks over
            all GPUs, a mapping of modules to devices as it says (accelerate's `device_map`). A
            model in memory stays.
        revision: commit, branch or tag of a hub model.
        trust_remote_code: run code that comes with a hub model.
        adapter: a LoRA to put over the weights: a folder that PEFT wrote or a hub name; or several
            by name, of which the first is on. `with_adapter` gives the others, and the base.
        remote: True runs every pass on NDIF, of which the weights stay there; "local" packs and
            unpacks it as if it went there, and runs it here. Both on the nnsight engine.
        remote_seconds: how long one pass on NDIF may take, waiting included.

    Raises:
        ModelError: it cannot be had, has pickle weights only, or fails its check.
        UnsupportedError: its family, the engine, or the kind of adapter is not supported.
    """
    if tokenizer is not None:
        _require_tokenizer(tokenizer)
    if adapter is not None:
        require_adapters(adapter)
    model = without_wrapper(model)
    kind = engine_class(engine, model, remote)
    if remote is True:
        from workbench.models.nnsight.loading import ndif_model

        loaded: Engine = ndif_model(
            model,
            tokenizer,
            revision=revision,
            trust_remote_code=trust_remote_code,
            seconds=remote_seconds,
        )
        return _checked(loaded, adapter)
    if model is None or isinstance(model, str | Path):
        hf, tokenizer, name = from_name(
            "atlas" if model is None else str(model),
            tokenizer,
            dtype=dtype,
            device=device,
            revision=revision,
            trust_remote_code=trust_remote_code,
        )
    else:
        hf, name = model, _name_in_memory(model, tokenizer, dtype, device)
    loaded = kind.of(hf, tokenizer, name=name, revision=revision or _revision(hf))
    return _checked(loaded, adapter)


def _checked(loaded: Engine, adapter: AdapterSource | None) -> Engine:
    check(loaded)
    return loaded if adapter is None else _adapted(loaded, adapter)


def _adapted(loaded: Engine, adapter: AdapterSource) -> Engine:
    if loaded.engine != "torch":
        raise UnsupportedError(
            f"the {loaded.engine} engine takes no adapter: load the model with engine='torch' for it"
        )
    first, *_ = add_adapters(loaded.hf, adapter)
    return loaded.with_adapter(first)


def _name_in_memory(model: Any, tokenizer: Any, dtype: Any, device: Any) -> str:
    if library_of(model) is None:
        _require_hugging_face(model, tokenizer)
    if dtype is not None or device is not None:
        raise ModelError(
            "a model in memory keeps its dtype and device: use model.to(...) before load"
        )
    # What nnsight puts beside the model is always in training mode, and never run.
    parts = list(model.modules()) if library_of(model) is None else [model]
    if any(getattr(part, "training", False) for part in parts):
        raise ModelError(
            "the model, or a part of it, is in training mode, so dropout would act: call model.eval() first"
        )
    if any(_is_compiled(part) for part in parts):
        raise ModelError(
            "the model is compiled, so what happens inside it cannot be seen: give the model from before "
            "torch.compile"
        )
    config = getattr(model, "config", None)
    return str(getattr(config, "_name_or_path", "") or type(model).__name__)


def _is_compiled(module: Any) -> bool:
    return "_orig_mod" in getattr(module, "_modules", {}) or bool(
        getattr(module, "_compiled_call_impl", None)
    )


def _require_hugging_face(model: Any, tokenizer: Any) -> None:
    if not hasattr(model, "config") or not hasattr(model, "get_input_embeddings"):
        raise ModelError(
            f"{type(model).__name__} is no Hugging Face model: give a name, a folder or such a model"
        )
    if tokenizer is None:
        raise ModelError("a model in memory needs its tokenizer: load(model, tokenizer)")


def _require_tokenizer(tokenizer: Any) -> None:
    if not callable(tokenizer) or not hasattr(tokenizer, "special_tokens_map"):
        raise ModelError(
            f"tokenizer is a {type(tokenizer).__name__}: expected a Hugging Face tokenizer, such as "
            "AutoTokenizer.from_pretrained or PreTrainedTokenizerFast(tokenizer_object=...) gives"
        )


def _revision(hf: Any) -> str | None:
    return getattr(getattr(hf, "config", None), "_commit_hash", None)
