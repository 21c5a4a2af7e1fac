"""Adapters from a folder or the hub, put into a model and left off there."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from workbench.errors import ModelError, UnsupportedError, WorkbenchError
from workbench.models.adapters import adapter_layers, adapter_names, belongs, set_layer
from workbench.models.hub import hub_answers
from workbench.models.locks import lock_of

__all__ = ["AdapterSource", "add_adapters", "require_adapters", "without_wrapper"]

AdapterSource = str | Path | Mapping[str, str | Path]
"""A folder or hub name, which names the adapter too; or several of them by name."""

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PICKLES = "adapter_model.bin"
# What a config may ask for that changes more than what linear maps add, and cannot be switched off.
BEYOND = (
    "modules_to_save",
    "trainable_token_indices",
    "target_parameters",
    "layer_replication",
    "alora_invocation_tokens",
    "use_qalora",
    "use_bdlora",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
)
STARTS = (True, False, "gaussian", "eva", "orthogonal")  # the others change the base's weights


def add_adapters(hf: Any, source: AdapterSource) -> list[str]:
    """Put adapters into `hf`, off, whole or not at all; their names, in the order given.

    The modules that they change are wrapped in place; what the model computes stays as it was.

    Raises:
        ModelError: peft is not installed, or an adapter cannot be had or does not fit the model.
        UnsupportedError: it is more than a LoRA.
    """
    given = _by_name(source)
    for name, one in given.items():
        _require_name(hf, name)
        config, weights = _read(str(one))
        with lock_of(hf), _whole_or_not(hf, name):
            _add(hf, name, str(one), config, weights)
    return list(given)


def require_adapters(source: AdapterSource) -> None:
    """Refuse, before anything is loaded or fetched, what cannot be the adapters of any model.

    Raises:
        ModelError: no name of a folder or on the hub, or a folder that holds no adapter.
    """
    for one in _by_name(source).values():
        if (folder := _local(str(one))) is not None:
            _require_files(str(one), folder)


def _by_name(source: AdapterSource) -> Mapping[str, str | Path]:
    """The adapters that are given, by name."""
    ones = list(source.values()) if isinstance(source, Mapping) else [source]
    if not ones:
        raise ModelError("no adapter: expected a folder or a hub name, or several by name")
    for one in ones:
        if not isinstance(one, str | Path):
            raise ModelError(
                f"adapter is a {type(one).__name__}: expected a folder or a hub name, or several by name"
            )
    return source if isinstance(source, Mapping) else {_name_of(source): source}


def without_wrapper(model: Any) -> Any:
    """The Hugging Face model inside a caller's PeftModel; any other model as it is.

    Raises:
        UnsupportedError: its adapter adds to the prompt, not to the weights.
    """
    if "peft" not in sys.modules:  # no model can be one
        return model
    from peft import PeftModel

    if not isinstance(model, PeftModel):
        return model
    if model.active_peft_config.is_prompt_learning:
        kind = model.active_peft_config.peft_type.value
        raise UnsupportedError(f"adapters of type {kind} are not supported: expected LORA")
    return model.get_base_model()


def _name_of(source: str | Path) -> str:
    """The last part of a path or hub name; PEFT takes no dots in it."""
    return Path(source).expanduser().resolve().name.replace(".", "_")


def _add(hf: Any, name: str, source: str, config: Any, weights: dict[str, Tensor]) -> None:
    from peft import inject_adapter_in_model, set_peft_model_state_dict
    from peft.tuners.tuners_utils import cast_adapter_dtype

    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")  # that it is not the first, that it corrects a flag
            inject_adapter_in_model(config, hf, name)
        hf.eval()  # what was put in begins in training mode, and would drop out
        cast_adapter_dtype(hf, name)  # float32 beside 16-bit weights, as PeftModel has it
        found = set_peft_model_state_dict(hf, weights, name)
    except (ValueError, KeyError, RuntimeError, TypeError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise ModelError(f"adapter {source} does not fit the model: {reason}") from None
    missing = [key for key in found.missing_keys if belongs(key, name)]
    if missing or found.unexpected_keys:
        key = [*missing, *found.unexpected_keys][0]
        what = "lacks" if missing else "has, and the model has not,"
        raise ModelError(f"adapter {source} {what} {key}: expected one of this very model")


def _require_name(hf: Any, name: str) -> None:
    if not isinstance(name, str) or not name or "." in name:
        raise ModelError(f"adapter name {name!r}: expected a text without dots")
    if name in adapter_names(hf):
        raise ModelError(
            f"the model has an adapter {name!r} already: use model.with_adapter({name!r}), or name this "
            "one with adapter={name: folder}"
        )


def _read(source: str) -> tuple[Any, dict[str, Tensor]]:
    """Config and weights."""
    try:
        from peft import LoraConfig
    except ImportError:
        raise ModelError("an adapter needs peft, which is not here: pip install peft") from None
    folder = _folder(source)
    try:
        settings = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        _require_lora(source, settings)
        return LoraConfig.from_pretrained(str(folder)), load_file(folder / WEIGHTS)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        if isinstance(error, WorkbenchError):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"adapter {source} cannot be read: {reason}") from None


def _folder(source: str) -> Path:
    """The local folder that holds the adapter, checked."""
    folder = _local(source) or _fetched(source)
    _require_files(source, folder)
    return folder


def _local(source: str) -> Path | None:
    """The folder here that `source` means; None where it can be a hub name alone."""
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    if source.startswith((".", "/", "~")) or source.count("/") != 1:
        raise ModelError(
            f"no adapter folder {source}: expected one that PEFT's save_pretrained wrote"
        )
    return None


def _require_files(source: str, folder: Path) -> None:
    if not (folder / CONFIG).is_file():
        raise ModelError(
            f"{source} has no {CONFIG}: expected a folder that PEFT's save_pretrained wrote"
        )
    if not (folder / WEIGHTS).is_file():
        pickled = (folder / PICKLES).is_file()
        what = (
            "pickle weights only, which can run code and are refused" if pickled else "no weights"
        )
        raise ModelError(f"adapter {source} has {what}: save it again as {WEIGHTS}")


def _fetched(source: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        patterns = [CONFIG, WEIGHTS, PICKLES]
        offline = not hub_answers(source, None)
        return Path(snapshot_download(source, allow_patterns=patterns, local_files_only=offline))
    except (OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"{source!r} is no folder here, and cannot be had from the hub: check the name and the "
            f"network, or give a local folder ({reason})"
        ) from None


def _require_lora(source: str, settings: Mapping[str, Any]) -> None:
    """Refuse what cannot be switched off, before PEFT makes anything of it."""
    if (kind := settings.get("peft_type")) != "LORA":
        raise UnsupportedError(f"adapter {source} is of type {kind}: expected LORA")
    beyond = [name for name in BEYOND if settings.get(name)]
    beyond += ["bias"] if settings.get("bias", "none") != "none" else []
    beyond += ["init_lora_weights"] if settings.get("init_lora_weights", True) not in STARTS else []
    if beyond:
        raise UnsupportedError(
            f"adapter {source} sets {beyond[0]}={settings[beyond[0]]!r}, which changes more than a LoRA "
            "that can be switched off: merge it and load the merged model"
        )


@contextmanager
def _whole_or_not(hf: Any, name: str) -> Iterator[None]:
    """A new adapter is off and frozen afterwards; after an error, the model is as it was."""
    modules, configs = dict(hf.named_modules()), dict(getattr(hf, "peft_config", {}))
    trained = {parameter: parameter.requires_grad for parameter in hf.parameters()}
    before = {layer: (layer.active_adapter, layer.disable_adapters) for layer in adapter_layers(hf)}
    try:
        yield
    except BaseException:
        for path, module in modules.items():
            if path and hf.get_submodule(path) is not module:
                hf.set_submodule(path, module)
        for layer, state in before.items():
            set_layer(layer, *state)
            layer.delete_adapter(name)
        hf.peft_config = configs
        raise
    finally:
        for layer in adapter_layers(hf):
            set_layer(layer, *before.get(layer, ([name], True)))
        for parameter in hf.parameters():
            parameter.requires_grad_(trained.get(parameter, False))
