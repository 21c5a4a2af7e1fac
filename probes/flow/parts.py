"""The parts that can be measured of a flow: their variables, and what each needs of a model."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from probes.flow.integrate import require_torchdiffeq
from workbench.errors import SettingError, UnsupportedError
from workbench.models.protocol import Model

__all__ = ["AXES", "PARTS", "require_part"]

PARTS = ("ode", "integrated", "bracket", "lyapunov", "orders")
SINGLE_BLOCKS = ("torch", "transformer_lens")
HALF = (torch.float16, torch.bfloat16)

AXES: Mapping[str, tuple[tuple[str, ...], str]] = {
    "step": (("layer",), "of |x|"),
    "turn": (("layer",), "cosine"),
    "straightness": (("layer",), "share"),
    "ode_defect": (("layer", "substeps"), "of the step"),
    "integrated_defect": (("layer",), "of the step"),
    "limit_error": (("layer",), "of the step"),
    "bracket": (("layer",), "of the step"),
    "swap": (("layer",), "of the step"),
    "stretch": (("layer", "exponent"), "nat"),
    "exponents": (("exponent",), "nat per layer"),
    "loss": ((), "nat per token"),
    "loss_change": (("order",), "nat per token"),
    "layer_loss_change": (("layer", "order"), "nat per token"),
    "random_change": (("layer", "order"), "nat per token"),
}
"""Axes behind (place, view), and the unit, of every variable, those of the path first."""


def require_part(part: str, model: Model) -> None:
    """Refuse a model on which a part cannot be measured.

    Raises:
        UnsupportedError: no single blocks on its engine, or no decoder where the part needs one.
        SettingError: weights of half precision; no torchdiffeq.
    """
    who = f"{model.name}: layer_flow's {part}"
    if model.engine not in SINGLE_BLOCKS:
        raise UnsupportedError(
            f"{who} needs single blocks, which the {model.engine} engine has not: load the model with "
            "engine='torch', or leave it out of parts"
        )
    if part in ("bracket", "orders") and not model.causal:
        raise UnsupportedError(
            f"{who} needs a decoder, whose blocks add attention and an MLP to the stream: leave it out "
            "of parts"
        )
    if part != "orders" and model.dtype in HALF:
        raise SettingError(
            f"{who} needs float32: {str(model.dtype).removeprefix('torch.')} rounds off what it measures; "
            "load the model with dtype='float32', or leave it out of parts"
        )
    if part == "integrated":
        require_torchdiffeq()
