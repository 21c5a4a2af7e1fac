"""Which engine runs a model: a table of classes, each imported when it is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Literal

from workbench.errors import UnsupportedError
from workbench.models.engine import Engine

__all__ = ["ENGINES", "Remote", "engine_class", "library_of"]

ENGINES: Mapping[str, str] = {
    "torch": "workbench.models.torch_engine:TorchModel",
    "transformer_lens": "workbench.models.bridge.engine:BridgeModel",
    "nnsight": "workbench.models.nnsight.engine:NnsightModel",
}
"""Engines by the package of the library that runs the passes."""

REMOTE: Mapping[bool | str, str] = {
    True: "workbench.models.nnsight.remote:NdifModel",
    "local": "workbench.models.nnsight.remote:SimulatedModel",
}
"""Engines whose passes travel, by what `remote` says."""

Remote = bool | Literal["local"]


def library_of(model: Any) -> str | None:
    """The engine whose own library made `model`; None for a Hugging Face model, or a name."""
    packages = (kind.__module__.split(".")[0] for kind in type(model).__mro__)
    return next((name for name in packages if name in ENGINES and name != "torch"), None)


def engine_class(engine: str | None, model: Any, remote: Remote = False) -> type[Engine]:
    """The class of `engine`; where None, the one that `model` was made for, or torch.

    Raises:
        UnsupportedError: no such engine, or one that cannot run what another library made.
    """
    library = library_of(model)
    wanted = engine or library or ("nnsight" if remote else "torch")
    if wanted not in ENGINES:
        raise UnsupportedError(
            f"engine {wanted!r} is not supported: expected one of {', '.join(ENGINES)}"
        )
    if library not in (None, wanted):
        raise UnsupportedError(
            f"a {type(model).__name__} runs on engine {library!r} alone: leave engine out, or give the "
            "Hugging Face model"
        )
    if remote and (wanted != "nnsight" or remote not in REMOTE):
        raise UnsupportedError(
            f"remote={remote!r} on engine {wanted!r} is not supported: expected True or 'local', on 'nnsight'"
        )
    module, name = (REMOTE[remote] if remote else ENGINES[wanted]).split(":")
    found: type[Engine] = getattr(import_module(module), name)
    return found
