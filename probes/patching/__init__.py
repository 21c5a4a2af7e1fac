"""Activation patching between a prompt and its counterfactual, and patching of single paths."""
