"""A model's layers as a flow: each block one Euler step of x' = block(x) - x, and what that misses."""
