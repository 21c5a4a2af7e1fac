"""What every fit of a lens shares: its file, and its KL on the part held out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from lenses.translators.translator import SUFFIX, Made, Translator
from lenses.vocabulary import statistics
from workbench.corpus import Corpus, batches
from workbench.fitted_model import identity
from workbench.fitting import Fit, Run, versions
from workbench.models.protocol import Model
from workbench.shown import destination

__all__ = ["LensFit", "held_out_kl"]


class LensFit(Fit[Translator]):
    """The settings of a fit of a lens."""

    @classmethod
    def destination(cls, path: Path) -> Path:
        """A .safetensors file that could be saved there."""
        return destination(path, [SUFFIX])

    def reported(self, run: Run, made: Translator) -> Translator:
        """The lens with its KL on the held-out part, beside that of the logit lens."""
        if not len(run.held):
            return made
        before = held_out_kl(run.model, run.held, None, self.batch_tokens)
        after = held_out_kl(run.model, run.held, made, self.batch_tokens)
        found = {"before": before, "after": after, "tokens": run.held.tokens, "unit": "nat"}
        return type(made)(made.tensors, self._made(run, held_out=found))

    def _made(self, run: Run, **more: Any) -> Made:
        return Made(
            identity(run.model),
            {"fit": type(self).__name__, **self.settings()},
            run.said,
            versions=versions(),
            **more,
        )


@torch.no_grad()
def held_out_kl(
    model: Model, corpus: Corpus, lens: Translator | None, batch_tokens: int
) -> list[float]:
    """Mean KL(final || lens) in nat over all places of a corpus, per layer 0..L-1.

    Args:
        lens: None for the logit lens.
    """
    lengths = [len(prompt) for prompt in corpus.prompts]
    total = torch.zeros(model.n_layers, dtype=torch.float64)
    for chosen in batches(lengths, range(len(lengths)), batch_tokens):
        caught = model.capture(model.batch([corpus.prompts[i] for i in chosen]), ["resid_post"])
        states = [caught["resid_post", layer] for layer in range(model.n_layers + 1)]
        read = [s if lens is None else lens(layer, s) for layer, s in enumerate(states[:-1])]
        none = torch.empty(0, len(states[-1]), dtype=torch.int64, device=states[-1].device)
        found = statistics(read, states[-1], caught.readout, k=1, followed=none)
        total += found.kl.double().sum(1).cpu()
    kl: list[float] = (total / corpus.tokens).tolist()
    return kl
