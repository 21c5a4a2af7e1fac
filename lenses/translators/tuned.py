"""The tuned lens: an affine translator for each layer, fitted to predict the model's own output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from lenses.translators.translator import Made, Translator
from workbench.fitted_model import identity
from workbench.instrument import Citation
from workbench.models.protocol import Model

__all__ = ["TunedLens"]


class TunedLens(Translator):
    """Tuned lens: T(W_U norm(h_l + A_l h_l + b_l)), fitted by KL(final || lens) (`TunedFit`).

    A_l and b_l begin at 0, where it is the logit lens. Source: Belrose et al. 2023, "Eliciting Latent
    Predictions from Transformers with the Tuned Lens", arXiv 2303.08112.

    Tensors: `weight` [L, d, d], A_l acting on a column; `bias` [L, d], in residual stream units.

    >>> lens = TunedFit(steps=50)(model, corpus)  # doctest: +SKIP
    >>> LogitLens(lens=lens)(model, "The capital of France is").plot()  # doctest: +SKIP
    """

    name: ClassVar[str] = "tuned_lens"
    title: ClassVar[str] = "Tuned lens"
    citation: ClassVar[Citation] = Citation(
        "Intermediate states of {model} were read in the vocabulary with a tuned lens (Belrose et "
        "al., 2023; {settings})",
        "@misc{belrose2023eliciting,\n"
        "  title  = {Eliciting Latent Predictions from Transformers with the Tuned Lens},\n"
        "  author = {Belrose, Nora and Furman, Zach and Smith, Logan and Halawi, Danny and Ostrovsky,\n"
        "            Igor and McKinney, Lev and Biderman, Stella and Steinhardt, Jacob},\n"
        "  year   = {2023},\n"
        "  note   = {arXiv:2303.08112}\n"
        "}",
    )

    @classmethod
    @override
    def shapes(cls, n_layers: int, d_model: int) -> dict[str, tuple[int, ...]]:
        return {"weight": (n_layers, d_model, d_model), "bias": (n_layers, d_model)}

    @classmethod
    def untrained(cls, model: Model) -> TunedLens:
        """All zeros: the logit lens."""
        dtype = torch.promote_types(model.dtype, torch.float32)
        shapes = cls.shapes(model.n_layers, model.d_model)
        zeros = {name: torch.zeros(shape, dtype=dtype) for name, shape in shapes.items()}
        return cls(zeros, Made(identity(model)))

    @override
    def translated(self, parts: Mapping[str, Tensor], layer: int, states: Tensor) -> Tensor:
        return states + torch.addmm(parts["bias"][layer], states, parts["weight"][layer].T)
