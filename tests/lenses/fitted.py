"""Lenses that are made and not fitted: what reads with one does not care."""

from __future__ import annotations

import torch

from lenses import JacobianLens, TunedLens
from lenses.translators.translator import Made, Translator
from workbench.fitted_model import identity
from workbench.models.protocol import Model


def drawn(kind: type[Translator], model: Model, scale: float = 0.2, seed: int = 0) -> Translator:
    """A lens of random numbers; a Jacobian one near the identity."""
    generator = torch.Generator().manual_seed(seed)
    shapes = kind.shapes(model.n_layers, model.d_model)
    tensors = {
        name: scale * torch.randn(shape, generator=generator) / model.d_model**0.5
        for name, shape in shapes.items()
    }
    if kind is JacobianLens:
        tensors["weight"] += torch.eye(model.d_model)
    return kind(tensors, Made(identity(model)))


def tuned(model: Model, seed: int = 0) -> Translator:
    return drawn(TunedLens, model, seed=seed)


def jacobian(model: Model) -> Translator:
    return drawn(JacobianLens, model)
