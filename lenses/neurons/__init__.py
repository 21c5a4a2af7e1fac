"""Neurons: value vectors, top contexts, histograms."""
