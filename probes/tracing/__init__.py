"""Causal tracing: which states, MLPs and attention carry a prompt's answer."""
