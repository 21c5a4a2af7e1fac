"""The batched pass: many instruments fed by one forward a batch.

In any batching and order the numbers are the same up to the rounding of the model's dtype: in
float32 a few 1e-6 of the size of the logits, so that ranks of tokens that nearly tie may swap.
"""

from workbench.passes.measuring import Gathered, finished, gather, measure, plan
from workbench.passes.progress import CancelFlag, Progress

__all__ = ["CancelFlag", "Gathered", "Progress", "finished", "gather", "measure", "plan"]
