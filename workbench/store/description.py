"""What a store of activations holds, as its manifest says it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from workbench.errors import ResultError
from workbench.models.positions import Positions, checked_positions
from workbench.models.sites import Site
from workbench.store.manifest import read_manifest

__all__ = ["Description"]

KIND = "activations"
FORMAT = 2


@dataclass(frozen=True)
class Description:
    """A store of activations in words and numbers.

    Attributes:
        model: provenance of the model that was captured.
        d_model, vocab_size: of that model.
        sites: what was kept.
        positions: where in each prompt.
        prompts: hash of the prompts, their token ids, targets and foils.
        n_prompts: how many they are.
        shard_size: prompts of a shard; the last may have fewer.
    """

    model: Mapping[str, Any]
    d_model: int
    vocab_size: int
    sites: tuple[Site, ...]
    positions: Positions
    prompts: str
    n_prompts: int
    shard_size: int

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the captured model."""
        dtype = getattr(torch, str(self.model["dtype"]), None)
        if not isinstance(dtype, torch.dtype):
            raise ValueError(f"no dtype {self.model['dtype']!r}")
        return dtype

    @property
    def keys(self) -> list[str]:
        """The keys of all shards, in the order of the prompts."""
        n_shards = -(-self.n_prompts // self.shard_size)
        return [self.key(number * self.shard_size) for number in range(n_shards)]

    def key(self, number: int) -> str:
        """The key of the shard that holds the prompt of this number."""
        return f"{number // self.shard_size:08d}"

    def numbers(self, key: str) -> range:
        """The numbers of the prompts of one shard."""
        first = int(key) * self.shard_size
        return range(first, min(first + self.shard_size, self.n_prompts))

    def manifest(self) -> dict[str, Any]:
        """As JSON data."""
        fields = asdict(self) | {"positions": _positions_data(self.positions)}
        return {"kind": KIND, "format": FORMAT, **fields}

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the manifest: that every folder of the store was written for it."""
        canonical = json.dumps(self.manifest(), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()

    @classmethod
    def read(cls, folder: Path) -> Description:
        """What the manifest of `folder` says.

        Raises:
            ResultError: there is none, or it is of something else or of another format.
        """
        found = read_manifest(folder)
        if found.get("kind") != KIND:
            raise ResultError(
                f"{folder} is no store of activations: expected one that capture made"
            )
        if found.get("format") != FORMAT:
            raise ResultError(
                f"{folder} has format {found.get('format')!r}: this version reads format {FORMAT}; "
                "use the version that made it, or capture again"
            )
        try:
            return cls._of(found)
        except (KeyError, TypeError, ValueError) as error:
            raise ResultError(
                f"the manifest of {folder} cannot be read: {error!r}; capture again"
            ) from None

    @classmethod
    def _of(cls, found: Mapping[str, Any]) -> Description:
        description = cls(
            model=dict(found["model"]),
            d_model=int(found["d_model"]),
            vocab_size=int(found["vocab_size"]),
            sites=tuple(Site(str(name), int(layer)) for name, layer in found["sites"]),
            positions=_positions(found["positions"]),
            prompts=str(found["prompts"]),
            n_prompts=int(found["n_prompts"]),
            shard_size=int(found["shard_size"]),
        )
        if min(description.n_prompts, description.shard_size) < 1:
            raise ValueError("no prompts")
        _ = description.dtype, description.model["name"], int(description.model["n_layers"])
        return description


def _positions_data(positions: Positions) -> Any:
    if isinstance(positions, slice):
        return {"slice": [positions.start, positions.stop, positions.step]}
    return positions


def _positions(data: Any) -> Positions:
    return checked_positions(slice(*data["slice"]) if isinstance(data, dict) else data)
