"""Lenses: what a vector of the residual stream says in the vocabulary."""

from lenses.corpus import Corpus
from lenses.jacobian import JacobianLens
from lenses.jacobian_fit import JacobianFit
from lenses.logit import LogitLens
from lenses.side_by_side import side_by_side
from lenses.translator import Translator, load_lens
from lenses.tuned import TunedLens
from lenses.tuned_fit import TunedFit

__all__ = [
    "Corpus",
    "JacobianFit",
    "JacobianLens",
    "LogitLens",
    "Translator",
    "TunedFit",
    "TunedLens",
    "load_lens",
    "side_by_side",
]
