"""A model's own last step, kept without its blocks: what reads stored states in the vocabulary.

Kept are the config, the tokenizer, and the weights of the final norm, the unembedding and what some
families have beside them (OPT's projection, BERT's head). Rebuilt is the whole model without the
memory of one: its blocks have no numbers, since a readout passes them over, and its embedding, which
a readout overwrites, is a single zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from workbench.errors import ModelError, ResultError, UnsupportedError
from workbench.models.families import family_of
from workbench.models.quantised import require_plain_weights
from workbench.models.torch_engine import TorchModel

__all__ = ["keep_last_step", "last_step", "require_last_step", "stored_tokenizer"]

WEIGHTS = "readout.safetensors"
TOKENIZER = "tokenizer"
PROBES = 8
ROUNDINGS = 64  # of one dot product, where weights lie elsewhere in memory
UNREADABLE = (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError)


def require_last_step(model: TorchModel) -> None:
    """Refuse a model whose last step does not come back the same.

    Raises:
        UnsupportedError: its class, or its tokenizer's, came with the model, or it has two stacks.
        ModelError: its readout is more than what is kept of it.
    """
    _require_plain_code(model)
    _require_one_stack(model)
    for part, module in _parts(model).items():
        require_plain_weights(module, f"{model.name}: a store keeps its {part}")
    with TemporaryDirectory() as folder:
        _keep_plan(model, Path(folder))
        weights = {name: tensor.to(model.device) for name, tensor in _weights(model).items()}
        try:
            again = _rebuilt(Path(folder), weights, model.name, model.dtype, model.device)
        except UNREADABLE as error:
            raise ModelError(
                f"{model.name} cannot be built again from its config: {_reason(error)}; measure the "
                "model itself"
            ) from error
    _require_same(model, again)


def keep_last_step(model: TorchModel, folder: Path) -> None:
    """Write the last step and the tokenizer of `model`."""
    _keep_plan(model, folder)
    weights = {name: tensor.cpu().contiguous() for name, tensor in _weights(model).items()}
    save_file(weights, folder / WEIGHTS)


def _keep_plan(model: TorchModel, folder: Path) -> None:
    model.hf.config.save_pretrained(folder)
    # Apart from the config, from which transformers would guess another class of tokenizer.
    model.tokenizer.save_pretrained(folder / TOKENIZER)


def _weights(model: TorchModel) -> dict[str, Tensor]:
    return {
        f"{part}.{name}": tensor.detach()
        for part, module in _parts(model).items()
        for name, tensor in module.state_dict().items()
    }


def _require_plain_code(model: TorchModel) -> None:
    """Refuse a model that transformers alone cannot build again."""
    for part in (model.hf, model.tokenizer):
        kind = type(part)
        if kind.__module__.split(".")[0] != "transformers":
            raise UnsupportedError(
                f"{model.name}: its class {kind.__qualname__} is not transformers' own, and a store "
                "keeps no code: measure the model itself"
            )


def _require_one_stack(model: TorchModel) -> None:
    if len(model.stacks) > 1:
        raise UnsupportedError(
            f"{model.name}: a store keeps the states of one stack of blocks, and "
            f"{model.anatomy.config.model_type} has two: measure the model itself"
        )


def _parts(model: TorchModel) -> dict[str, nn.Module]:
    anatomy, unembedding = model.anatomy, model.hf.get_output_embeddings()
    return {"final_norm": anatomy.final_norm, "head": anatomy.head, "unembedding": unembedding}


def _require_same(model: TorchModel, again: TorchModel) -> None:
    if again.tokens.fingerprint != model.tokens.fingerprint:
        raise ModelError(
            f"{model.name}: its tokenizer does not come back the same when it is saved"
        )
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(PROBES, model.d_model, generator=generator).to(model.device, model.dtype)
    live, stored = model.readout(states).double(), again.readout(states).double()
    allowed = ROUNDINGS * torch.finfo(model.dtype).eps * float(live.abs().max())
    if not float((live - stored).abs().max()) <= allowed:
        raise ModelError(
            f"{model.name}: its last step is more than its final norm, unembedding and config, which is "
            "all that a store keeps: measure the model itself"
        )


def last_step(folder: Path, name: str, dtype: torch.dtype, device: torch.device) -> TorchModel:
    """The model that `keep_last_step` wrote, of which the readout alone can be run.

    Raises:
        ResultError: a file is missing or cannot be read.
    """
    try:
        # Copies: a file's numbers are not aligned as torch aligns its own.
        weights = {
            name: tensor.to(device, copy=True)
            for name, tensor in load_file(folder / WEIGHTS).items()
        }
        return _rebuilt(folder, weights, name, dtype, device)
    except UNREADABLE as error:
        raise _unreadable(folder, error) from None


def _rebuilt(
    folder: Path, weights: Mapping[str, Tensor], name: str, dtype: torch.dtype, device: torch.device
) -> TorchModel:
    model = TorchModel(_empty(folder, dtype), stored_tokenizer(folder), name=name)
    for part, module in _parts(model).items():
        begin = f"{part}."
        own = {key.removeprefix(begin): t for key, t in weights.items() if key.startswith(begin)}
        module.load_state_dict(own, assign=True)
    _fill(_without_blocks(model), device)
    return model


def stored_tokenizer(folder: Path) -> Any:
    """The tokenizer that `keep_last_step` wrote.

    Raises:
        ResultError: it is missing or cannot be read.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(
            folder / TOKENIZER, local_files_only=True, trust_remote_code=False
        )
    except UNREADABLE as error:
        raise _unreadable(folder, error) from None


def _unreadable(folder: Path, error: Exception) -> ResultError:
    return ResultError(f"{folder} cannot be read: {_reason(error)}; remove it and capture again")


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _empty(folder: Path, dtype: torch.dtype) -> Any:
    """The model of the kept config, in evaluation mode, with no number in it."""
    import transformers

    config = transformers.AutoConfig.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False
    )
    kind = getattr(transformers, family_of(config).auto)
    with torch.device("meta"):
        return kind.from_config(
            config, dtype=dtype, attn_implementation="eager", trust_remote_code=False
        ).eval()


def _without_blocks(model: TorchModel) -> list[nn.Module]:
    inside = {module for block in model.anatomy.blocks for module in block.modules()}
    return [module for module in model.hf.modules() if module not in inside]


def _fill(modules: Iterable[nn.Module], device: torch.device) -> None:
    """Put zeros, of which one is in memory, where a tensor has no numbers yet."""
    for module in modules:
        own = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
        for name, tensor in own:
            if tensor.is_meta:
                zeros = torch.zeros((), dtype=tensor.dtype, device=device).expand(tensor.shape)
                parameter = isinstance(tensor, nn.Parameter)
                setattr(module, name, nn.Parameter(zeros, False) if parameter else zeros)
