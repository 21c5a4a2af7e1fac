"""A workbench for looking inside transformer language models, layer by layer.

>>> import workbench as wb
>>> from lenses import LogitLens
>>> model = wb.load()
>>> lens = LogitLens(top_k=5)(model, "The Eiffel Tower is located in the city of")
"""

from workbench.comparison import Comparison, compare
from workbench.errors import (
    Cancelled,
    ModelError,
    PromptError,
    ResultError,
    SettingError,
    TargetError,
    UnsupportedError,
    WorkbenchError,
)
from workbench.instrument import (
    Citation,
    Driving,
    Instrument,
    Measured,
    Named,
    Reading,
    SetLevel,
    State,
)
from workbench.models import (
    Batch,
    Captures,
    Change,
    Edit,
    Engine,
    Factors,
    KeyValues,
    Model,
    Places,
    Read,
    Site,
    Steer,
    TorchModel,
    Weights,
    load,
)
from workbench.passes import Progress, measure, plan
from workbench.plans import Plan
from workbench.prompts import Prompt, PromptSet
from workbench.results import Result, plot_layers
from workbench.store.activations import Store
from workbench.store.capture import capture

__version__ = "0.1.0"

__all__ = [
    "Batch",
    "Cancelled",
    "Captures",
    "Change",
    "Citation",
    "Comparison",
    "Driving",
    "Edit",
    "Engine",
    "Factors",
    "Instrument",
    "KeyValues",
    "Measured",
    "Model",
    "ModelError",
    "Named",
    "Places",
    "Plan",
    "Progress",
    "Prompt",
    "PromptError",
    "PromptSet",
    "Read",
    "Reading",
    "Result",
    "ResultError",
    "SetLevel",
    "SettingError",
    "Site",
    "State",
    "Steer",
    "Store",
    "TargetError",
    "TorchModel",
    "UnsupportedError",
    "Weights",
    "WorkbenchError",
    "capture",
    "compare",
    "load",
    "measure",
    "plan",
    "plot_layers",
]
