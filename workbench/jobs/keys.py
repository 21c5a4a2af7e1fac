"""The key of a stored result: a hash of all that its numbers depend on."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from workbench.assembly import PACKAGES
from workbench.instrument import Instrument
from workbench.jobs.plain import canonical, plain_prompts, plain_settings
from workbench.models.protocol import Model
from workbench.models.tokens import EncodedPrompt
from workbench.prompts import PromptSet
from workbench.simulation import Simulation

__all__ = ["code_hash", "keys", "simulation_key"]


def keys(
    model: Model,
    prompts: PromptSet,
    encoded: Sequence[EncodedPrompt],
    instruments: Sequence[Instrument],
) -> dict[str, str]:
    """The key of each instrument's result, 64 hex digits, by the instrument's name.

    Two measurements have one key only if model, weights, dtype, device, exact tokens, prompts,
    settings, files that settings name, versions and the code of the instrument and of the workbench are
    the same.
    """
    common = {
        "model": model.provenance(),
        "prompts": plain_prompts(prompts),
        "tokens": [(one.ids, one.target, one.foil, one.answer) for one in encoded],
        "versions": {name: version(name) for name in PACKAGES},
        "code": code_hash("workbench"),
    }
    shared = hashlib.sha256(canonical(common).encode()).hexdigest()
    return {it.name: _key(shared, it) for it in instruments}


def simulation_key(simulation: Simulation) -> str:
    """The key of a simulation's result: of its settings, versions, and its and the workbench's code."""
    common = {
        "versions": {name: version(name) for name in PACKAGES},
        "code": code_hash("workbench"),
    }
    return _hashed(canonical(common), [*_own(simulation)])


def _key(shared: str, instrument: Instrument) -> str:
    return _hashed(shared, [*_own(instrument), _files(instrument)])


def _own(one: Instrument | Simulation) -> tuple[str, str, dict[str, Any]]:
    kind = type(one)
    code = code_hash(kind.__module__.partition(".")[0])
    return f"{kind.__module__}.{kind.__qualname__}", code, plain_settings(one)


def _hashed(shared: str, own: list[Any]) -> str:
    return hashlib.sha256(f"{shared} {canonical(own)}".encode()).hexdigest()


def _files(instrument: Instrument) -> list[str]:
    """SHA-256 of what lies in the files that settings name: a path says nothing of a file written anew.

    A name that carries its file's hash, as lenses' and SAEs' do, is no path, and needs none.
    """
    named = [getattr(instrument, setting) for setting in instrument.files]
    paths = [Path(name) for name in named if isinstance(name, str) and name]
    return [hashlib.sha256(it.read_bytes()).hexdigest() for it in paths if it.is_file()]


@cache
def code_hash(module: str) -> str:
    """SHA-256 of the source of a top-level module or package, as this process first saw it.

    A version says nothing while a plug-in is being written.
    """
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None:
        return ""
    path = Path(file)
    files = sorted(path.parent.rglob("*.py")) if path.name == "__init__.py" else [path]
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()
