"""How sharp attention is: entropy, effective temperature, sinks, and what long contexts do to them."""
