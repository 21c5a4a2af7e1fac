"""Probes: what is where in a model, and what it causes."""

from probes.ablation.instrument import Ablate
from probes.circuits.edge_instrument import EdgeAttribution
from probes.circuits.instrument import AttributionPatch
from probes.circuits.span_instrument import SpanTrace
from probes.interchange.instrument import Interchange
from probes.patching.instrument import Patch
from probes.patching.path import PathPatch
from probes.sparse.instrument import SparseProbe
from probes.steering.ablation import ProbeAblation
from probes.steering.instrument import Steering
from probes.superposition.instrument import Superposition
from probes.tracing.instrument import CausalTrace

__all__ = [
    "Ablate",
    "AttributionPatch",
    "CausalTrace",
    "EdgeAttribution",
    "Interchange",
    "Patch",
    "PathPatch",
    "ProbeAblation",
    "SpanTrace",
    "SparseProbe",
    "Steering",
    "Superposition",
]
