"""Attention: patterns and scores of heads."""
