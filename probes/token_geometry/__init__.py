"""Where the tokens of one prompt lie, layer by layer: cosines in one order, and a common sphere."""
