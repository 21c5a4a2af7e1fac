"""The conformance suite: does a hooked model give Hugging Face's own numbers?

`probe_prompts` makes the prompts, `Answers` are plain Hugging Face's, and `conform` compares: it gives
a `Cell` for each operation, site and padding, a measured error with its tolerance or the message of
a refusal.
"""

from workbench.conformance.answers import Answers
from workbench.conformance.cells import Cell
from workbench.conformance.run import conform, probe_prompts

__all__ = ["Answers", "Cell", "conform", "probe_prompts"]
