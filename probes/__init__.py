"""Probes: what is where in a model, and what it causes."""
