"""Which model a worker loads, and how: plain data, since it travels to another process."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from workbench.errors import SettingError
from workbench.models.engine import Engine
from workbench.models.loading import load

__all__ = ["ModelSpec"]


@dataclass(frozen=True)
class ModelSpec:
    """A model as `workbench.load` takes it.

    Attributes:
        source: "atlas", a hub name or a folder.
        dtype: name of the weights' dtype, such as "bfloat16"; as stored where None.
        device: the device whose worker holds it; the one with the fewest models where None.
        engine, revision, trust_remote_code: as in `workbench.load`.
    """

    source: str
    dtype: str | None = None
    device: str | None = None
    engine: str = "torch"
    revision: str | None = None
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        for name in ("source", "dtype", "device"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise SettingError(
                    f"model {name} is {value!r}: expected text, which can travel to a worker process"
                )

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> ModelSpec:
        """The spec that `plain` was made of."""
        return cls(**plain)

    def plain(self) -> dict[str, Any]:
        """The spec as plain data."""
        return dataclasses.asdict(self)

    def load(self, device: str) -> Engine:
        """Load it to `device`; errors are those of `workbench.load`."""
        return load(
            self.source,
            dtype=self.dtype,
            device=device,
            engine=self.engine,
            revision=self.revision,
            trust_remote_code=self.trust_remote_code,
        )
