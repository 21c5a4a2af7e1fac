"""Lenses: what a vector of the residual stream says in the vocabulary."""

from lenses.attention import Attention
from lenses.attribution import DirectAttribution
from lenses.backward import BackwardLens
from lenses.corpus import Corpus
from lenses.edit import EditEffect
from lenses.edit_cases import counterfactuals
from lenses.editing import GradientStep, ImprintShift, WeightEdit
from lenses.input_attribution import InputAttribution
from lenses.jacobian import JacobianLens
from lenses.jacobian_fit import JacobianFit
from lenses.logit import LogitLens
from lenses.neurons import NeuronView
from lenses.side_by_side import side_by_side
from lenses.translator import Translator, load_lens
from lenses.tuned import TunedLens
from lenses.tuned_fit import TunedFit

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
