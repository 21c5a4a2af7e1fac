"""Lenses: what a vector of the residual stream says in the vocabulary."""

from lenses.attribution import DirectAttribution
from lenses.backward import BackwardLens
from lenses.edit import EditEffect
from lenses.edit_cases import counterfactuals
from lenses.editing import GradientStep, ImprintShift, WeightEdit
from lenses.logit import LogitLens
from lenses.neurons import NeuronView

__all__ = [
    "BackwardLens",
    "DirectAttribution",
    "EditEffect",
    "GradientStep",
    "ImprintShift",
    "LogitLens",
    "NeuronView",
    "WeightEdit",
    "counterfactuals",
]
