"""Hooked models: one interface, canonical sites, and the engines behind it."""

from workbench.models.batch import Batch, Places
from workbench.models.captures import Captures, Read
from workbench.models.changes import Change
from workbench.models.edits import Edit
from workbench.models.engine import Engine, Factors
from workbench.models.keys_values import KeyValues
from workbench.models.loading import load
from workbench.models.protocol import Model
from workbench.models.sites import SITES, Site
from workbench.models.steering import Steer
from workbench.models.torch_engine import TorchModel
from workbench.models.weights import Weights

__all__ = [
    "SITES",
    "Batch",
    "Captures",
    "Change",
    "Edit",
    "Engine",
    "Factors",
    "KeyValues",
    "Model",
    "Places",
    "Read",
    "Site",
    "Steer",
    "TorchModel",
    "Weights",
    "load",
]
