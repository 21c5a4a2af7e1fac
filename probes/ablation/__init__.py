"""Ablation: what a head, an MLP, an attention or a range of blocks is worth to the loss and to an answer."""
