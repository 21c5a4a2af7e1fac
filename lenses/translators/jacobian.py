"""The Jacobian lens: what a state does, on average and to first order, to the states after the last block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor
from typing_extensions import override

from lenses.translators.translator import Translator
from workbench.instrument import Citation

__all__ = ["JacobianLens"]


class JacobianLens(Translator):
    """Jacobian lens: T(W_U norm(J_l h_l)), with J_l averaged over a corpus (`JacobianFit`).

    J_l = mean over prompts of the mean over source positions t of the sum over t' >= t of
    d h_L,t' / d h_l,t. h_L is the state after the last block, before the final norm; the norm is the
    model's own and acts after J_l. J_L is the identity, so that the last layer is the model's own.

    Source: Gurnee et al. 2026, "Verbalizable Representations Form a Global Workspace in Language
    Models".

    Tensors: `weight` [L, d, d], J_l acting on a column.
    """

    name: ClassVar[str] = "jacobian_lens"
    title: ClassVar[str] = "Jacobian lens"
    citation: ClassVar[Citation] = Citation(
        "Intermediate states of {model} were read in the vocabulary with a Jacobian lens (Gurnee et "
        "al., 2026; {settings})",
        "@article{gurnee2026verbalizable,\n"
        "  title   = {Verbalizable Representations Form a Global Workspace in Language Models},\n"
        "  author  = {Gurnee, Wes and others},\n"
        "  journal = {Transformer Circuits Thread},\n"
        "  year    = {2026}\n"
        "}",
    )

    @classmethod
    @override
    def shapes(cls, n_layers: int, d_model: int) -> dict[str, tuple[int, ...]]:
        return {"weight": (n_layers, d_model, d_model)}

    @override
    def translated(self, parts: Mapping[str, Tensor], layer: int, states: Tensor) -> Tensor:
        return states @ parts["weight"][layer].T
