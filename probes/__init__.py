"""Probes: what is where in a model, and what it causes."""

from probes.ablation.instrument import Ablate

__all__ = ["Ablate"]
