"""Tokens as particles on the sphere: how ordered, clustered and spread a model's states are."""
