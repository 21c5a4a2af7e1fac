"""Lenses: what a vector of the residual stream says in the vocabulary."""

from lenses.attention import Attention
from lenses.backward import BackwardLens
from lenses.input_attribution import InputAttribution
from lenses.logit import LogitLens

__all__ = ["Attention", "BackwardLens", "InputAttribution", "LogitLens"]
