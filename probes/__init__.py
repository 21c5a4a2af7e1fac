"""Probes: what is where in a model, and what it causes."""

from probes.ablation.instrument import Ablate
from probes.sparse.instrument import SparseProbe
from probes.tracing.instrument import CausalTrace

__all__ = ["Ablate", "CausalTrace", "SparseProbe"]
