"""Latents of sparse autoencoders: read, fitted, and held against what they must beat."""
