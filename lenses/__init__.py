"""Lenses: what a vector of the residual stream says in the vocabulary."""

from lenses.attribution import DirectAttribution
from lenses.backward import BackwardLens
from lenses.logit import LogitLens

__all__ = ["BackwardLens", "DirectAttribution", "LogitLens"]
