"""The logit lens: each layer's state, read by the model's own last step."""
