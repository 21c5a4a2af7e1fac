"""Which model something was fitted on, and whether another is the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workbench.errors import ModelError
from workbench.models.protocol import Model
from workbench.results import called

__all__ = ["HASHES", "identity", "require_same"]

HASHES = ("weights", "adapter", "tokenizer")
"""What must be equal of two models."""


def identity(model: Model) -> dict[str, Any]:
    """What is fitted must know of its model: hashes of weights, adapter, tokenizer; sizes; names."""
    said = model.provenance()
    adapter = said.get("adapter")
    return {
        "name": said["name"],
        "weights": said["weights"],
        "adapter": None if adapter is None else adapter["weights"],
        "tokenizer": said["tokenizer"],
        "dtype": said["dtype"],
        "n_layers": model.n_layers,
        "d_model": model.d_model,
    }


def require_same(fitted: Mapping[str, Any], model: Model, who: str) -> None:
    """Refuse another model than the one whose `identity` is `fitted`.

    A view with changed weights may be read by what was fitted on the model without them, which shows
    what the changes do to the states; the result says so.

    Raises:
        ModelError: the weights, the adapter or the tokenizer are others; it begins with `who`.
    """
    here, said = identity(model), model.provenance()
    if fitted["weights"] == said.get("unchanged_weights"):
        here["weights"] = said["unchanged_weights"]
    for what in HASHES:
        if fitted[what] != here[what]:
            raise ModelError(
                f"{who} was fitted on {fitted['name']} in {fitted['dtype']} ({what} {fitted[what]}), and "
                f"this is {called(said)} in {here['dtype']} ({what} {here[what]}): fit one on this "
                "model, or load it as it was"
            )
