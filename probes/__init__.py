"""Probes: what is where in a model, and what it causes."""

from __future__ import annotations

from probes.interchange.instrument import Interchange
from probes.tracing.instrument import CausalTrace

__all__ = ["CausalTrace", "Interchange"]
