"""What a model's parts cause: tracing, patching, ablation, and circuits."""
