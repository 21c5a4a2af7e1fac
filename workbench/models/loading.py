"""`load`: a hub name, a local folder, a model in memory, or nothing (the bundled model)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from workbench.atlas import MODELS, model_path
from workbench.errors import ModelError, UnsupportedError
from workbench.models.checks import check
from workbench.models.families import family_of
from workbench.models.torch_engine import TorchModel

__all__ = ["chosen_device", "load"]

ENGINES = ("torch",)
HUB_SECONDS = 10
PICKLES = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt")


def load(
    model: Any = None,
    tokenizer: Any = None,
    *,
    engine: str = "torch",
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> TorchModel:
    """Load a causal language model and check that its sites mean what they say.

    Args:
        model: nothing or "atlas" / "atlas-bag" for the bundled models, a Hugging Face hub name, a
            folder written by `save_pretrained`, or a Hugging Face model in memory.
        tokenizer: needed with a model in memory; otherwise it comes with the model.
        engine: "torch".
        dtype: of the weights; as stored where None (float32 for the bundled models). A model in
            memory keeps its own.
        device: CUDA where present and CPU otherwise, where None. A model in memory stays.
        revision: commit, branch or tag of a hub model.
        trust_remote_code: run code that comes with a hub model.

    Raises:
        ModelError: it cannot be had, has pickle weights only, or fails its check.
        UnsupportedError: its family, or the engine, is not supported.
    """
    if engine not in ENGINES:
        raise UnsupportedError(
            f"engine {engine!r} is not supported: expected {' or '.join(ENGINES)}"
        )
    if model is None or isinstance(model, str | Path):
        hf, tokenizer, name = _from_name(
            "atlas" if model is None else str(model),
            dtype=dtype,
            device=device,
            revision=revision,
            trust_remote_code=trust_remote_code,
        )
    else:
        hf, name = model, _name_in_memory(model, tokenizer, dtype, device)
    loaded = TorchModel(hf, tokenizer, name=name, revision=revision or _revision(hf))
    check(loaded)
    return loaded


def _from_name(
    name: str,
    *,
    dtype: torch.dtype | str | None,
    device: torch.device | str | None,
    revision: str | None,
    trust_remote_code: bool,
) -> tuple[Any, Any, str]:
    target = chosen_device(device)
    folder = _folder(name)
    options: dict[str, Any] = {
        "trust_remote_code": trust_remote_code,
        "local_files_only": folder is not None,
    }
    options |= {} if revision is None else {"revision": revision}
    source = name if folder is None else str(folder)
    if folder is None and not _hub_answers(name, revision):
        options["local_files_only"] = True  # what was fetched before serves offline
    config = _pretrained("AutoConfig", source, name, options)
    family_of(config.model_type)
    tokenizer = _pretrained("AutoTokenizer", source, name, options)
    bundled = name in MODELS
    kept = dtype or (torch.float32 if bundled else "auto")
    wanted = {"dtype": kept, "use_safetensors": True, "output_loading_info": True}
    hf, info = _pretrained("AutoModelForCausalLM", source, name, options | wanted)
    _require_whole(name, info)
    return hf.to(target).eval(), tokenizer, name if bundled or folder is None else folder.name


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


def _hub_answers(name: str, revision: str | None) -> bool:
    """Whether the hub can be asked for `name`: one request, without the loaders' long retries."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        HfApi().model_info(name, revision=revision, timeout=HUB_SECONDS)
    except HfHubHTTPError:
        return True  # it answered; the loader says what is wrong with the name
    except Exception:  # whatever the network layer of the day raises
        return False
    return True


def _folder(name: str) -> Path | None:
    """The local folder that `name` means, checked; None for a hub name."""
    if name in MODELS:
        return model_path(name)
    folder = Path(name).expanduser()
    if not folder.exists():
        if name.startswith((".", "/", "~")) or name.count("/") > 1:
            raise ModelError(f"no folder {name}: expected one written by save_pretrained")
        return None
    _require_files(folder)
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
                "be random; expected a whole causal language model"
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


def _name_in_memory(model: Any, tokenizer: Any, dtype: Any, device: Any) -> str:
    if not hasattr(model, "config") or not hasattr(model, "get_input_embeddings"):
        raise ModelError(
            f"{type(model).__name__} is no Hugging Face model: give a name, a folder or such a model"
        )
    if tokenizer is None:
        raise ModelError("a model in memory needs its tokenizer: load(model, tokenizer)")
    if dtype is not None or device is not None:
        raise ModelError(
            "a model in memory keeps its dtype and device: use model.to(...) before load"
        )
    if model.training:
        raise ModelError(
            "the model is in training mode, so dropout would act: call model.eval() first"
        )
    return str(getattr(model.config, "_name_or_path", "") or type(model).__name__)


def _revision(hf: Any) -> str | None:
    return getattr(hf.config, "_commit_hash", None)
