"""Engine "transformer_lens": canonical sites on the hook points of a `TransformerBridge`."""
