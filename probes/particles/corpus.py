"""What states are centred on: each layer's mean over text that is not the text that is measured."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Self
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from probes.particles.preprocessing import prepare
from probes.particles.sets import filled
from probes.particles.states import SINKS, Drop, padded, tokens_that_count
from workbench.atlas.corpus import sentences
from workbench.errors import PromptError, SettingError
from workbench.models.fingerprint import hash_text
from workbench.models.protocol import Model
from workbench.models.tokens import EncodedPrompt
from workbench.plans import make_plan
from workbench.prompts import Prompt, PromptSet

__all__ = ["BUNDLED", "Corpus", "LayerMeans"]

BUNDLED = ""
SENTENCES, SEED = 200, 2026  # Atlas itself was trained on other draws
LEAST = 1000  # tokens
KEPT = 32  # means of models and their twins, [layers, d] each


@dataclass(frozen=True)
class Corpus:
    """Text to take means over.

    Attributes:
        prompts: its texts.
        source: what it is called.
    """

    prompts: PromptSet
    source: str

    @classmethod
    def read(cls, path: str) -> Corpus:
        """Of a prompt file, whose targets are not used; of the bundled sentences where it is "".

        Raises:
            PromptError: no such file, or a line that cannot be used.
        """
        if path == BUNDLED:
            texts = [one.text for one in islice(sentences(SEED), SENTENCES)]
            return cls(PromptSet.of(texts), f"the {SENTENCES} bundled sentences")
        every = PromptSet.read(path)
        return cls(PromptSet.of([Prompt(p.text, messages=p.messages) for p in every]), path)

    @cached_property
    def texts(self) -> frozenset[str]:
        """What is in it."""
        return frozenset(prompt.shown for prompt in self.prompts)

    def require_held_out(
        self,
        prompts: Iterable[Prompt],
        who: str = "particles",
        without: str = "views=raw,random,shuffled",
    ) -> None:
        """Refuse to measure what the mean is taken over.

        Args:
            who: the instrument that takes it off.
            without: the settings with which it does not.

        Raises:
            SettingError: a prompt stands in the corpus.
        """
        for prompt in prompts:
            if prompt.shown in self.texts:
                raise SettingError(
                    f"{who}: prompt {prompt.shown[:40]!r} stands in the corpus {self.source}, whose "
                    f"mean is to be that of other text: give another corpus, or {without}"
                )

    def encoded(self, model: Model) -> list[EncodedPrompt]:
        """Its texts as `model` sees them.

        Raises:
            SettingError: they are too few tokens for a mean.
            PromptError: one does not fit into the model's context.
        """
        try:
            found = [model.encode(prompt) for prompt in self.prompts]
        except PromptError as error:
            raise PromptError(f"corpus {self.source}: {error}") from None
        count = sum(map(len, found))
        if count < LEAST:
            raise SettingError(
                f"corpus {self.source} holds {count} tokens: expected at least {LEAST}"
            )
        return found


_known: OrderedDict[tuple[str, str, str], Tensor] = OrderedDict()
_guard = Lock()


@dataclass(frozen=True)
class LayerMeans:
    """Each layer's mean state over the tokens of a corpus that count.

    Kept by the fingerprint of the model that they are of: of a twin, the twin's own. The fingerprint,
    which reads all weights, is taken once of each model object; other batches of a run find it so, and
    the next run, before which weights may be written in place, calls `forget`.

    Attributes:
        corpus: the text.
        drop: which tokens count, as in what is measured.
    """

    corpus: Corpus
    drop: Drop
    _seen: WeakKeyDictionary[Model, Tensor] = field(
        default_factory=WeakKeyDictionary, init=False, repr=False, compare=False
    )

    def of(self, model: Model) -> Tensor:
        """[layers, d] on the model's device, in float32 at least."""
        found = self._seen.get(model)
        if found is None:
            found = self._seen[model] = self._kept(model)
        return found

    def forget(self) -> None:
        """Take fingerprints again: weights may have changed."""
        self._seen.clear()

    def __reduce__(self) -> tuple[type[Self], tuple[Corpus, Drop]]:
        """Without what was seen: weak references are not pickled, and copies see for themselves."""
        return type(self), (self.corpus, self.drop)

    def _kept(self, model: Model) -> Tensor:
        prompts = self.corpus.encoded(model)
        key = (json.dumps(model.provenance(), default=str), _hash(prompts), self.drop)
        with _guard:
            found = _known.get(key)
        if found is None:
            found = _mean(model, prompts, self.drop)
            with _guard:
                _known[key] = found
                while len(_known) > KEPT:
                    _known.popitem(last=False)
        dtype = torch.promote_types(model.dtype, torch.float32)
        return found.to(model.device, dtype)

    def said(self, model: Model) -> str:
        """What was taken off, for a result's provenance."""
        prompts = self.corpus.encoded(model)
        return (
            f"centred: less each layer's mean over {sum(map(len, prompts)):,} tokens of "
            f"{Path(self.corpus.source).name} (token ids {_hash(prompts)}); a twin's less the twin's own"
        )


def _hash(prompts: Iterable[EncodedPrompt]) -> str:
    return hash_text("\n".join(" ".join(map(str, prompt.ids)) for prompt in prompts))


def _mean(model: Model, prompts: list[EncodedPrompt], drop: Drop) -> Tensor:
    """One pass over the corpus; sums in float64."""
    layers = model.n_layers + 1
    planned = make_plan(model, [len(p) for p in prompts], n_sites=layers, last_layer=model.n_layers)
    total = torch.zeros(layers, model.d_model, dtype=torch.float64)
    count = torch.zeros(layers, dtype=torch.float64)
    for batch in planned.batches:
        captures = model.capture(model.batch([prompts[i] for i in batch]), "resid_post")
        tokens = tokens_that_count(captures, model.tokens, drop)
        for layer in range(layers):
            states = padded(captures, layer)
            left = prepare(states, tokens, sink=SINKS[drop]).mask
            total[layer] += filled(states, left).double().sum((0, 1)).cpu()
            count[layer] += int(left.sum())
    return total / count[:, None]
