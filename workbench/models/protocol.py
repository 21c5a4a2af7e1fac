"""What every engine offers: one interface to a hooked model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from workbench.models.batch import Batch, Padding
from workbench.models.captures import Captures, Read
from workbench.models.changes import Changes
from workbench.models.edits import Edit
from workbench.models.engine import Factors
from workbench.models.forward import Start
from workbench.models.gradients import Pullback, Scalar
from workbench.models.keys_values import KeyValues
from workbench.models.positions import Positions
from workbench.models.sites import SiteRequest
from workbench.models.steering import Steer
from workbench.models.tokens import EncodedPrompt, Tokens
from workbench.models.weights import Weights
from workbench.prompts import Prompt, Prompts

if TYPE_CHECKING:
    from workbench.models.blocks import Blocks

__all__ = ["Model"]


class Model(Protocol):
    """A hooked language model. `Engine`'s docstrings define each call."""

    name: str
    tokens: Tokens
    token_limit: int | None

    @property
    def lock(self) -> AbstractContextManager[Any]: ...
    @property
    def engine(self) -> str: ...
    @property
    def n_layers(self) -> int: ...
    @property
    def n_heads(self) -> int: ...
    @property
    def n_parameters(self) -> int: ...
    @property
    def causal(self) -> bool: ...
    @property
    def stacks(self) -> Mapping[str, Model]: ...
    @property
    def d_model(self) -> int: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def tokenizer(self) -> Any: ...

    def window(self, layer: int) -> int | None: ...
    def provenance(self) -> dict[str, Any]: ...
    def encode(self, prompt: Prompt, *, long_targets: bool = False) -> EncodedPrompt: ...
    def batch(
        self, prompts: Prompts | Sequence[EncodedPrompt], padding: Padding = "right"
    ) -> Batch: ...
    def as_run(self, batch: Batch) -> Batch: ...
    def capture(
        self,
        batch: Batch | Prompts,
        sites: str | Sequence[SiteRequest],
        positions: Positions = "all",
    ) -> Captures: ...
    def read(
        self,
        batch: Batch,
        reads: Sequence[Read],
        *,
        edits: Sequence[Edit] = (),
        start: Start | None = None,
        prefix: KeyValues | None = None,
    ) -> list[Captures]: ...
    def intervene(
        self,
        batch: Batch | Prompts,
        edits: Sequence[Edit],
        sites: str | Sequence[SiteRequest] = ("logits",),
        positions: Positions = "all",
        start: Start | None = None,
    ) -> Captures: ...
    def generate(
        self, prompts: Batch | Prompts, tokens: int = 16, *, edits: Sequence[Edit] = ()
    ) -> list[str]: ...
    def tail(
        self,
        batch: Batch | Prompts,
        layer: int,
        resid: Tensor,
        sites: str | Sequence[SiteRequest] = ("logits",),
        positions: Positions = "all",
        prefix: KeyValues | None = None,
    ) -> Captures: ...
    def grad(
        self,
        batch: Batch | Prompts,
        scalar: Scalar,
        sites: str | Sequence[SiteRequest],
        positions: Positions = "all",
        at: Positions = "last",
        start: Start | None = None,
    ) -> Captures: ...
    def grad_and_values(
        self,
        batch: Batch | Prompts,
        scalar: Scalar,
        sites: str | Sequence[SiteRequest],
        at: Positions = "last",
        start: Start | None = None,
    ) -> tuple[Captures, Captures]: ...
    def factors(
        self,
        batch: Batch | Prompts,
        loss: Scalar,
        maps: Sequence[tuple[str, int]],
        positions: Positions = "all",
        at: Positions = "last",
        start: Start | None = None,
    ) -> dict[tuple[str, int], Factors]: ...
    def pullback(
        self, batch: Batch | Prompts, target: SiteRequest, sites: str | Sequence[SiteRequest]
    ) -> AbstractContextManager[Pullback]: ...
    def blocks(self, batch: Batch | Prompts) -> AbstractContextManager[Blocks]: ...
    def embedded(self, batch: Batch | Prompts, shift: Tensor | None = None) -> Tensor: ...
    @property
    def embedding(self) -> Tensor: ...
    def readout(self, resid: Tensor) -> Tensor: ...
    @property
    def weights(self) -> Weights: ...
    def with_changes(self, changes: Changes) -> Model: ...
    def with_steering(self, steers: Sequence[Steer]) -> Model: ...
    def twin(self, seed: int = 0) -> Model: ...
