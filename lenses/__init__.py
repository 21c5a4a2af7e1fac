"""Lenses: what a vector of the residual stream says in the vocabulary."""

from lenses.attention.instrument import Attention
from lenses.attribution.instrument import DirectAttribution
from lenses.backward.lens import BackwardLens
from lenses.editing.cases import counterfactuals
from lenses.editing.edits import GradientStep, ImprintShift, WeightEdit
from lenses.editing.instrument import EditEffect
from lenses.inputs.instrument import InputAttribution
from lenses.logit.lens import LogitLens
from lenses.neurons.instrument import NeuronView
from lenses.translators.jacobian import JacobianLens
from lenses.translators.jacobian_fit import JacobianFit
from lenses.translators.side_by_side import side_by_side
from lenses.translators.translator import Translator, load_lens
from lenses.translators.tuned import TunedLens
from lenses.translators.tuned_fit import TunedFit
from workbench.corpus import Corpus

__all__ = [
    "Attention",
    "BackwardLens",
    "Corpus",
    "DirectAttribution",
    "EditEffect",
    "GradientStep",
    "ImprintShift",
    "InputAttribution",
    "JacobianFit",
    "JacobianLens",
    "LogitLens",
    "NeuronView",
    "Translator",
    "TunedFit",
    "TunedLens",
    "WeightEdit",
    "counterfactuals",
    "load_lens",
    "side_by_side",
]
