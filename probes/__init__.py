"""Probes: what is where in a model, and what it causes."""

from probes.ablation.instrument import Ablate
from probes.patching.instrument import Patch
from probes.patching.path import PathPatch
from probes.tracing.instrument import CausalTrace

__all__ = ["Ablate", "CausalTrace", "Patch", "PathPatch"]
