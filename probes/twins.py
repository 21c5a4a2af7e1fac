"""The untrained twin as a control of reading instruments: whether it is read, and why it is not."""

from __future__ import annotations

from workbench.models.protocol import Model
from workbench.store.activations import Store

__all__ = ["MOST", "why_no_twin"]

MOST = 10**9  # parameters


def why_no_twin(model: Model) -> str | None:
    """Why this model's twin is left out; None where it is read."""
    if isinstance(model, Store):
        return "a store of activations has no twin"
    if model.n_parameters > MOST:
        about = model.n_parameters / MOST
        return f"the model has {about:.1f} B parameters, and twins above 1 B are left out"
    return None
