"""Direct attribution: what each component writes into a logit."""
