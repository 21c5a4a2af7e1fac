"""Causal tracing: which state, at which token and layer, carries what the model predicts."""
