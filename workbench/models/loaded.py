"""What a loaded model is: its name, sizes, weights, adapters, and where its sites are."""

from __future__ import annotations

from contextlib import AbstractContextManager
from copy import copy
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch

from workbench.errors import ModelError, UnsupportedError
from workbench.models.adapters import (
    active_adapter,
    adapter_names,
    adapter_tensors,
    base_tensors,
    turns,
)
from workbench.models.anatomy import Anatomy
from workbench.models.changes import Changes
from workbench.models.family import Kind
from workbench.models.fingerprint import Fingerprint
from workbench.models.quantised import require_tensors
from workbench.models.steering import Steer
from workbench.models.tokens import Tokens

if TYPE_CHECKING:
    from workbench.models.engine import Engine

__all__ = ["Loaded"]


class Loaded:
    """A Hugging Face model with its tokenizer, found to be of a family that an engine can run.

    Attributes:
        engine: the engine's name.
        kinds: the kinds of model that the engine runs.
        hf: the Hugging Face model.
        tokens: its tokenizer under the workbench's special-token policy.
        name, revision: what it was loaded as.
        anatomy: where its sites are.
        refused: sites that failed their load-time check, with the reason.
        adapter: which of the model's adapters is on in every pass; None for none.
        changes: weights that are changed in its passes, by (map, layer).
        steers: vectors that are added in its passes.
        lock: held by every pass; one for each Hugging Face model, however often it is loaded.
        token_limit: the most tokens a batch may hold, where memory has set one.
    """

    engine: ClassVar[str]
    kinds: ClassVar[tuple[Kind, ...]] = ("decoder", "encoder")

    def __init__(
        self,
        hf: Any,
        tokenizer: Any,
        *,
        name: str,
        revision: str | None = None,
        anatomy: Anatomy | None = None,
    ) -> None:
        self.hf = hf
        self.anatomy = Anatomy(hf) if anatomy is None else anatomy
        self._require_kind()
        self._require_head()
        require_tensors(hf)
        rows = hf.get_input_embeddings().num_embeddings
        self.tokens = Tokens(tokenizer, rows, closed=self.anatomy.family.kind != "decoder")
        self.name = name
        self.revision = revision
        self.refused: dict[str, str] = {}
        self.adapter = active_adapter(hf)
        self.changes: Changes = {}
        self.steers: tuple[Steer, ...] = ()
        self.lock: AbstractContextManager[Any] = turns(hf, self.adapter)
        self.token_limit: int | None = None
        self._twins: dict[int, Engine] = {}
        self._fingerprint = Fingerprint(partial(base_tensors, hf))

    def _require_kind(self) -> None:
        kind = self.anatomy.family.kind
        if kind not in self.kinds:
            raise UnsupportedError(
                f"{self.anatomy.config.model_type} ({kind.replace('_', '-')}) cannot be run here: load the "
                "model with engine='torch'"
            )

    def _require_head(self) -> None:
        if self.anatomy.lack("logits") is None and self.hf.get_output_embeddings() is None:
            raise ModelError(
                f"{type(self.hf).__name__} has no logits over its vocabulary: expected a language "
                f"model, such as {self.anatomy.family.auto} gives"
            )

    def __repr__(self) -> str:
        return (
            f"<{self.called}: {self.anatomy.config.model_type}, {self.n_layers} blocks, width "
            f"{self.d_model}, {self.vocab_size} tokens, {self.dtype}, {self.device}, "
            f"{self.engine} engine>"
        )

    @property
    def called(self) -> str:
        """Its name, and that of the adapter that is on."""
        return self.name if self.adapter is None else f"{self.name} + {self.adapter}"

    @property
    def adapters(self) -> list[str]:
        """The adapters that the model holds."""
        return adapter_names(self.hf)

    @property
    def tokenizer(self) -> Any:
        """The Hugging Face tokenizer."""
        return self.tokens.tokenizer

    @property
    def n_layers(self) -> int:
        """L, the number of blocks."""
        return self.anatomy.n_layers

    @property
    def causal(self) -> bool:
        """Whether a token sees only those before it (not so in an encoder)."""
        return self.anatomy.causal

    @property
    def n_heads(self) -> int:
        """Heads of attention in a block."""
        return int(self.anatomy.config.num_attention_heads)

    @property
    def n_parameters(self) -> int:
        """How many numbers its weights hold, tied ones counted once."""
        return sum(parameter.numel() for parameter in self.hf.parameters())

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return int(self.anatomy.config.hidden_size)

    def window(self, layer: int) -> int | None:
        """How many tokens, itself the last, a token sees in block `layer`; None for all it may."""
        return self.anatomy.window(layer)

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding (some models pad the tokenizer's vocabulary)."""
        return self.tokens.n_rows

    @property
    def context(self) -> int | None:
        """The most tokens a prompt may have; None where the config sets no limit."""
        limit = getattr(self.anatomy.config, "max_position_embeddings", None)
        return None if limit is None else int(limit)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights, of those that are not quantised."""
        found: torch.dtype = next(p.dtype for p in self.hf.parameters() if p.is_floating_point())
        return found

    @property
    def device(self) -> torch.device:
        """Where the model takes its input."""
        device: torch.device = self.hf.get_input_embeddings().weight.device
        return device

    def provenance(self) -> dict[str, Any]:
        """What a result must say of the model: its name, revision, weights, tokenizer, dtype."""
        return {
            "name": self.name,
            "revision": self.revision,
            "family": self.anatomy.config.model_type,
            "engine": self.engine,
            "n_layers": self.n_layers,
            "weights": self._weights(),
            "adapter": self._adapter_provenance(),
            "tokenizer": self.tokens.fingerprint,
            "special_tokens": self.tokens.policy,
            "chat_template": self.tokens.template,
            "dtype": str(self.dtype).removeprefix("torch."),
            "device": str(self.device),
            "attention": getattr(self.anatomy.config, "_attn_implementation", None),
            "refused": self.refused,
        }

    def _adapter_provenance(self) -> dict[str, str] | None:
        if self.adapter is None:
            return None
        weights = Fingerprint(partial(adapter_tensors, self.hf, self.adapter))
        return {"name": self.adapter, "weights": weights()}

    def with_adapter(self, name: str | None) -> Self:
        """The same model, over the same weights, with this one of its adapters on, or with none.

        Both can be used side by side, from any thread: each pass has its own adapter on, and when
        none runs the Hugging Face model is as its owner left it.

        Raises:
            ModelError: it has no such adapter.
        """
        if name is not None and name not in self.adapters:
            known = ", ".join(map(repr, self.adapters)) or "nothing"
            raise ModelError(f"{self.name} has no adapter {name!r}: expected {known} or None")
        view = copy(self)
        view.adapter, view.lock, view.refused = name, turns(self.hf, name), {}
        view._twins = {}
        return view

    def _weights(self) -> str:
        """Which weights a result speaks of."""
        return self._fingerprint()
