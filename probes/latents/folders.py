"""The folder of an SAE in SAELens' format: cfg.json and sae_weights.safetensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from workbench.errors import ResultError

__all__ = ["CFG", "WEIGHTS", "folder_destination", "read_folder"]

CFG, WEIGHTS = "cfg.json", "sae_weights.safetensors"


def read_folder(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What cfg.json says, and the tensors.

    Raises:
        ResultError: no such folder, or files that cannot be read.
    """
    for name in (CFG, WEIGHTS):
        if not (folder / name).is_file():
            raise ResultError(
                f"no {name} in {folder}: expected a folder in SAELens' format; download it first "
                "if it is on a hub, or make one with `workbench fit sae`"
            )
    try:
        cfg = dict(json.loads((folder / CFG).read_text(encoding="utf-8")))
        with safe_open(folder / WEIGHTS, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ResultError(f"{folder} cannot be read as an SAE: {reason}") from None
    return cfg, tensors


def folder_destination(path: str | Path) -> Path:
    """`path`, if a folder could be made there.

    Raises:
        ResultError: it is there, or its parent is not.
    """
    path = Path(path)
    if path.exists():
        raise ResultError(f"{path} is there already: give a folder to make, or remove it")
    if not path.parent.is_dir():
        raise ResultError(f"no folder {path.parent}: make it first")
    return path
