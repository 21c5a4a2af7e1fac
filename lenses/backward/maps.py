"""Which linear maps read the residual stream and which write to it, and how settings call them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from workbench.models.anatomy import MLP_MAPS

__all__ = ["COMPONENTS", "GROUPS", "READ", "WRITE", "kind_of"]

READ = ("ff1", "up", "gate", "q", "k", "v")
"""Maps that read the residual stream: their inputs are read in the vocabulary, the imprint."""
WRITE = ("ff2", "down", "o")
"""Maps that write to it: minus the gradient at their outputs is read, the shift."""
GROUPS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"mlp": MLP_MAPS, "attention": ("q", "k", "v", "o"), "all": (*MLP_MAPS, "q", "k", "v", "o")}
)
COMPONENTS = 3  # singular values kept of each gradient


def kind_of(name: str) -> str:
    """What of the map `name` is read in the vocabulary."""
    return "shift" if name in WRITE else "imprint"
