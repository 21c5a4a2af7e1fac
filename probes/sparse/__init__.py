"""Sparse probing: which neurons carry a feature, held out and with their chances."""
