"""What fitted lenses share: an affine map of each layer's state before the readout, and their file.

A lens is a safetensors file: one tensor a part with the layer as its first axis, and one JSON text in
the metadata that says which model it belongs to and how it was fitted. Nothing in it is code.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from workbench.errors import ResultError
from workbench.fitted_model import HASHES, require_same
from workbench.instrument import Citation
from workbench.models.protocol import Model
from workbench.shown import destination
from workbench.store.shards import Shards

__all__ = ["SUFFIX", "Made", "Translator", "load_lens"]

FORMAT = 1
SUFFIX = ".safetensors"
METADATA = "lens"
DIGITS = 16  # of a file's SHA-256


@dataclass(frozen=True)
class Made:
    """What a lens says of its making.

    Attributes:
        model: name, n_layers, d_model, dtype, and the hashes of weights, adapter and tokenizer.
        settings: those of the fit.
        corpus: hash, numbers of prompts and tokens, and the hashes of the prompts held out.
        held_out: KL(final || lens) of the held-out part in nat, per layer 0..L-1: with the logit lens
            ("before") and with this one ("after"); empty where nothing was held out.
        versions: of the packages that did it.
    """

    model: Mapping[str, Any]
    settings: Mapping[str, Any] = field(default_factory=dict)
    corpus: Mapping[str, Any] = field(default_factory=dict)
    held_out: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, Any] = field(default_factory=dict)


class Translator(ABC):
    """An affine map of each layer's state, by which it is read as a state after the last block.

    Subclasses say what their tensors are. The state after the last block is never translated: its
    readout is the model's own.

    Attributes:
        name, title: of the kind, for files and for figures.
        citation: the method's source.
        site: the states that it is fitted on; it reads no others.
        tensors: [L, ...] each; row l belongs to the state after block l (0: the embedding).
        made: the model and the fit.
        file: where it lies; None where it was not saved.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    citation: ClassVar[Citation]
    site: ClassVar[str] = "resid_post"

    def __init__(
        self, tensors: Mapping[str, Tensor], made: Made, file: str | Path | None = None
    ) -> None:
        self.tensors = {name: tensor.detach() for name, tensor in tensors.items()}
        self.made = made
        self.file = None if file is None else Path(file)
        self._require_shapes()
        self._placed: dict[tuple[torch.device, torch.dtype], dict[str, Tensor]] = {}

    @classmethod
    @abstractmethod
    def shapes(cls, n_layers: int, d_model: int) -> dict[str, tuple[int, ...]]:
        """The shape of each tensor for a model of these sizes."""

    @abstractmethod
    def translated(self, parts: Mapping[str, Tensor], layer: int, states: Tensor) -> Tensor:
        """[N, d] states of one layer, translated; `parts` are the tensors, placed as `states` is."""

    def __call__(self, layer: int, states: Tensor) -> Tensor:
        """[N, d] states after block `layer` as states after the last block, in their own dtype.

        The product is taken in float32 at least. The last layer's states are given back as they are.
        """
        if layer == self.n_layers:
            return states
        wide = torch.promote_types(states.dtype, torch.float32)
        parts = self._at(states.device, wide)
        return self.translated(parts, layer, states.to(wide)).to(states.dtype)

    def _at(self, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
        if (device, dtype) not in self._placed:
            moved = {name: tensor.to(device, dtype) for name, tensor in self.tensors.items()}
            self._placed = {(device, dtype): moved}
        return self._placed[device, dtype]

    def __repr__(self) -> str:
        return (
            f"<{self.title} {self.hash[:8]} of {self.made.model['name']}: layers 0..{self.n_layers - 1}, "
            f"width {self.made.model['d_model']}>"
        )

    @property
    def n_layers(self) -> int:
        """L; the layers 0..L-1 are translated."""
        return int(self.made.model["n_layers"])

    def _encoded(self) -> bytes:
        """The file. Equal fits give equal files, which is why no date is in it."""
        said = {"format": FORMAT, "kind": self.name, **asdict(self.made)}
        tensors = {name: tensor.cpu().contiguous() for name, tensor in self.tensors.items()}
        return save(tensors, {METADATA: json.dumps(said, sort_keys=True)})

    @cached_property
    def hash(self) -> str:
        """First 16 hex digits of the SHA-256 of its file."""
        return hashlib.sha256(self._encoded()).hexdigest()[:DIGITS]

    def save(self, path: str | Path) -> Path:
        """Save as one .safetensors file, which appears whole or not at all.

        Raises:
            ResultError: another suffix, or a folder that is not there.
        """
        path = destination(path, [SUFFIX])
        with Shards(path.parent).replacing(path) as new:
            new.write_bytes(self._encoded())
        self.file = path
        return path

    def described(self) -> dict[str, Any]:
        """Where it lies, its hash, and how it was made."""
        return {"file": str(self.file), "hash": self.hash, **asdict(self.made)}

    def summary(self) -> str:
        """Where it lies, and what it does on the part held out, layer by layer."""
        first, held = f"{self.title} {self.hash} in {self.file}", self.made.held_out
        if not held:
            return f"{first}; nothing was held out"
        count = len(self.made.corpus["held_out"])
        rows = enumerate(zip(held["before"], held["after"], strict=True))
        return "\n".join(
            [
                first,
                f"mean KL(final || lens) of {count} prompts held out ({held['tokens']} tokens), nat",
                "layer  logit lens   this lens",
                *(f"{layer:5}  {old:10.4f}  {new:10.4f}" for layer, (old, new) in rows),
            ]
        )

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Load what `save` wrote.

        Raises:
            ResultError: no such file, one that was cut short or is of something else, or tensors that
                do not fit what the file says of itself.
        """
        loaded = load_lens(path)
        if not isinstance(loaded, cls):
            raise ResultError(f"{path} holds a {loaded.name}: expected a {cls.name}")
        return loaded

    def require(self, model: Model) -> None:
        """Refuse another model than the one that it was fitted on, see `require_same`.

        Raises:
            ModelError: the weights, the adapter or the tokenizer are others.
        """
        require_same(self.made.model, model, f"{self.title.lower()} {self.hash[:8]}")

    def _require_shapes(self) -> None:
        expected = self.shapes(self.n_layers, int(self.made.model["d_model"]))
        found = {name: tuple(tensor.shape) for name, tensor in self.tensors.items()}
        if found != expected:
            raise ResultError(
                f"a {self.name} of {self.made.model['name']} with tensors {found}: expected {expected}"
            )


def load_lens(path: str | Path) -> Translator:
    """The lens of a file, of whichever kind.

    Raises:
        ResultError: as `Translator.load`.
    """
    path = Path(path)
    if not path.is_file():
        raise ResultError(f"no lens file {path}: fit one with `workbench fit`")
    try:
        with safe_open(path, "pt") as file:
            said = dict(json.loads((file.metadata() or {})[METADATA]))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        kind = {kind.name: kind for kind in Translator.__subclasses__()}[said.pop("kind")]
        if said.pop("format") != FORMAT:
            raise ResultError("another format: use the version that made it")
        lens = kind(tensors, Made(**said), path)
        _ = [lens.made.model[name] for name in ("name", *HASHES)]
    except (SafetensorError, OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ResultError(f"{path} is no safetensors file, or was cut short: {reason}") from None
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, ResultError):
            raise ResultError(f"{path}: {error}") from None
        raise ResultError(f"{path} holds no lens of this workbench: fit one anew") from None
    with path.open("rb") as content:
        lens.hash = hashlib.file_digest(content, "sha256").hexdigest()[:DIGITS]
    return lens
