"""From a name or a folder to configuration, tokenizer and weights, each checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from workbench.atlas import MODELS, model_path
from workbench.errors import ModelError
from workbench.models.families import family_of
from workbench.models.hub import hub_answers

__all__ = ["Placement", "chosen_device", "described", "from_name"]

SHORT = {"fp64": "float64", "fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
PICKLES = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt")

Placement = torch.device | str | Mapping[str, Any] | None
"""Where a model's weights go: one device, or what accelerate is to spread its blocks by."""


def from_name(
    name: str,
    tokenizer: Any = None,
    *,
    dtype: torch.dtype | str | None,
    device: Placement,
    revision: str | None,
    trust_remote_code: bool,
) -> tuple[Any, Any, str]:
    """A Hugging Face model, its tokenizer and what it is called; arguments and errors as `load`."""
    placed = _placed(device)
    folder = _folder(name, whole=tokenizer is None)
    config, found, source, options = described(name, revision, trust_remote_code, folder, tokenizer)
    bundled = name in MODELS
    kept = _dtype(dtype) or (torch.float32 if bundled else "auto")
    wanted: dict[str, Any] = {"dtype": kept, "use_safetensors": True, "output_loading_info": True}
    packed = getattr(config, "quantization_config", None) is not None
    spread = not isinstance(placed, torch.device)
    # Packed weights cannot be moved later; plain ones can, and then need no hooks of accelerate's.
    wanted |= {"device_map": placed if spread else {"": placed}} if packed or spread else {}
    hf, info = _pretrained(family_of(config).auto, source, name, options | wanted)
    _require_whole(name, info)
    _require_held(name, hf)
    hf = hf if packed or spread else hf.to(placed)
    return hf.eval(), found, name if bundled or folder is None else folder.name


def described(
    name: str,
    revision: str | None,
    trust_remote_code: bool,
    folder: Path | None = None,
    tokenizer: Any = None,
) -> tuple[Any, Any, str, dict[str, Any]]:
    """A model's configuration, tokenizer, and where and with what options its weights are had.

    The tokenizer is the one that is given, or its own.

    Raises:
        ModelError: they cannot be had.
        UnsupportedError: its family is not supported.
    """
    options: dict[str, Any] = {
        "trust_remote_code": trust_remote_code,
        "local_files_only": folder is not None,
    }
    options |= {} if revision is None else {"revision": revision}
    source = name if folder is None else str(folder)
    if folder is None and not hub_answers(name, revision):
        options["local_files_only"] = True  # what was fetched before serves offline
    config = _pretrained("AutoConfig", source, name, options)
    family_of(config)
    if tokenizer is None:
        tokenizer = _pretrained("AutoTokenizer", source, name, options)
    return config, tokenizer, source, options


def _dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    """The dtype of that name.

    Raises:
        ModelError: there is none for weights.
    """
    if not isinstance(dtype, str):
        return dtype
    name = dtype.removeprefix("torch.")
    found = getattr(torch, SHORT.get(name, name), None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ModelError(
            f"dtype {dtype!r} cannot be used: expected float32, bfloat16, float16 or float64; quantised "
            "weights keep the form in which they were saved"
        )
    return found


def _placed(device: Placement) -> Any:
    """One device, or what accelerate is to spread the blocks by, checked."""
    if device == "auto":
        return device
    if isinstance(device, Mapping):
        return {module: _checked_device(there) for module, there in device.items()}
    return chosen_device(device)


def _checked_device(there: Any) -> Any:
    return there if there == "disk" else chosen_device(there)


def chosen_device(device: torch.device | str | None) -> torch.device:
    """The device to load to.

    Raises:
        ModelError: it is none, or this machine does not have it.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"device {device!r} cannot be used here: {reason}") from None
    return chosen


def _folder(name: str, *, whole: bool) -> Path | None:
    """The local folder that `name` means, checked; None for a hub name.

    `whole`: it must hold a tokenizer as well.
    """
    if name in MODELS:
        return model_path(name)
    folder = Path(name).expanduser()
    if not folder.exists():
        if name.startswith((".", "/", "~")) or name.count("/") > 1:
            raise ModelError(f"no folder {name}: expected one written by save_pretrained")
        return None
    _require_files(folder)
    if whole:
        _require_tokenizer(folder)
    return folder.resolve()


def _require_files(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"{folder} has no config.json: expected a folder written by save_pretrained"
        )
    if not any(folder.glob("*.safetensors")):
        pickles = [path.name for pattern in PICKLES for path in folder.glob(pattern)]
        if pickles:
            raise ModelError(
                f"{folder} has pickle weights only ({pickles[0]}), which can run code and are refused: "
                "load them where you trust them and save_pretrained again, which writes safetensors"
            )
        raise ModelError(f"{folder} has no weights: expected model.safetensors (or shards of it)")


def _require_tokenizer(folder: Path) -> None:
    if not any(
        (folder / file).is_file()
        for file in ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")
    ):
        raise ModelError(
            f"{folder} has no tokenizer: save one there with tokenizer.save_pretrained(folder)"
        )


def _require_whole(name: str, info: dict[str, Any]) -> None:
    """Refuse weights that do not fill the model: the rest would be random numbers."""
    for problem in ("missing_keys", "mismatched_keys"):
        if found := sorted(map(str, info.get(problem, ()))):
            raise ModelError(
                f"{name}: {len(found)} {problem.replace('_keys', '')} weights ({found[0]}, ...): they would "
                "be random; expected a whole language model"
            )


def _require_held(name: str, hf: Any) -> None:
    """Refuse weights that are moved in for each pass and out again: their blocks hold none."""
    if missing := [path for path, weight in hf.named_parameters() if weight.is_meta]:
        raise ModelError(
            f"{name}: {len(missing)} weights ({missing[0]}, ...) do not fit the devices and would be "
            "moved in for each pass: give more devices, or a smaller dtype"
        )


def _pretrained(kind: str, source: str, name: str, options: dict[str, Any]) -> Any:
    import transformers

    try:
        return getattr(transformers, kind).from_pretrained(source, **options)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        raise ModelError(_unavailable(kind, name, options, error)) from error


def _unavailable(kind: str, name: str, options: dict[str, Any], error: Exception) -> str:
    part = {"AutoConfig": "configuration", "AutoTokenizer": "tokenizer"}.get(kind, "weights")
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if Path(name).exists() or name in MODELS:
        return f"{name}: its {part} cannot be read: {reason}"
    offline = " (offline)" if options["local_files_only"] else ""
    return (
        f"{name!r} is no folder here, and its {part} cannot be had from the hub{offline}: check the name "
        f"and the network, or give a local folder; nothing or 'atlas' loads the bundled model ({reason})"
    )
