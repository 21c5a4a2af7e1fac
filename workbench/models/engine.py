"""What every engine offers, with one docstring for each call."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from torch import Tensor

from workbench.errors import UnsupportedError
from workbench.models.accepting import Accepting
from workbench.models.batch import Batch
from workbench.models.captures import Captures, Read
from workbench.models.changes import Changes
from workbench.models.edits import Edit
from workbench.models.forward import Part, Start
from workbench.models.generation import continuations
from workbench.models.gradients import Pullback, Scalar
from workbench.models.keys_values import KeyValues
from workbench.models.positions import Positions
from workbench.models.sites import SiteRequest
from workbench.models.steering import Steer
from workbench.models.twin import random_twin
from workbench.models.weights import Weights
from workbench.prompts import Prompts

if TYPE_CHECKING:
    from workbench.models.blocks import Blocks

__all__ = ["Engine", "Factors", "Part"]


@dataclass(frozen=True)
class Factors:
    """The gradient of one linear map z = x W, unformed: dL/dW = sum over places of x^T delta.

    Attributes:
        x: [N, d_in] inputs.
        delta: [N, d_out] gradients of the loss at the outputs.
    """

    x: Tensor
    delta: Tensor


class Engine(Accepting, ABC):
    """A language model with canonical sites that are read and edited, on one of the engines.

    Every call takes the model's lock, leaves no hook, no changed forward and no `.grad` behind
    (also after an exception), runs without a KV cache unless given one, and passes explicit mask
    and position ids. Batches may be given as a `Batch` or as prompts.
    """

    @classmethod
    def of(cls, model: Any, tokenizer: Any, *, name: str, revision: str | None = None) -> Engine:
        """Of a Hugging Face model, or of one that the engine's own library made."""
        return cls(model, tokenizer, name=name, revision=revision)

    @property
    def stacks(self) -> Mapping[str, Engine]:
        """The stacks of blocks of which it has sites, by the prefix of their names."""
        return {"": self}

    @property
    def weights(self) -> Weights:
        """Its linear maps, norms and unembedding, to be read."""
        raise self._cannot("weights")

    def with_changes(self, changes: Changes) -> Self:
        """The same model with weights changed in its own passes, and in nobody else's.

        Nothing is written: the view adds x left^T right to what each map gives, and leaving it is
        exact. Results say in their provenance that they were measured under changes. Calls add up.

        Args:
            changes: by (map, layer); maps as for `factors`.

        Raises:
            UnsupportedError: the engine cannot, or the family lacks a map.
            SettingError: a change of another width than its map.

        >>> edited = model.with_changes({("ff2", 3): Change(x[None], e[None])})  # doctest: +SKIP
        """
        raise self._cannot("changes of weights")

    def with_steering(self, steers: Sequence[Steer]) -> Self:
        """The same model with vectors added at sites in its own passes, and in nobody else's.

        Nothing is written, every instrument measures the view as any model, and results say in their
        provenance how it was steered. Calls add up. Who runs `hf` himself has the vectors on while he
        holds the view's lock.

        Args:
            steers: at resid_post, mlp_out, mlp_act or z of layers 1..L. For other sites, or for some
                positions alone, give `Steer.edit` to `read` or `intervene`.

        Raises:
            UnsupportedError: the engine cannot, or the site cannot be steered in every pass.

        >>> steered = model.with_steering([Steer(("resid_post", 3), vector, 2.0)])  # doctest: +SKIP
        """
        raise self._cannot("steering of every pass")

    def twin(self, seed: int = 0) -> Engine:
        """A model of the same configuration and tokenizer whose weights were never trained.

        Drawn as its family draws them at first, on the torch engine, in the same dtype and on the
        same device; kept for the next call.

        Raises:
            UnsupportedError: quantised weights, or weights that lie elsewhere.
        """
        if seed not in self._twins:
            from workbench.models.torch_engine import TorchModel

            name = f"{self.name} with random weights (seed {seed})"
            made = TorchModel.of(random_twin(self.hf, seed), self.tokenizer, name=name)
            made.refused = dict(self.refused)
            self._twins[seed] = made
        return self._twins[seed]

    # --- reading and editing ---------------------------------------------------------------

    def capture(
        self,
        batch: Batch | Prompts,
        sites: str | Sequence[SiteRequest],
        positions: Positions = "all",
    ) -> Captures:
        """Read `sites` at `positions` in one forward pass."""
        return self.read(self._batch(batch), [Read(sites, positions)])[0]

    def intervene(
        self,
        batch: Batch | Prompts,
        edits: Sequence[Edit],
        sites: str | Sequence[SiteRequest] = ("logits",),
        positions: Positions = "all",
        start: Start | None = None,
    ) -> Captures:
        """Read `sites` in a forward pass with `edits`, from `start` (layer, states) where given."""
        return self.read(self._batch(batch), [Read(sites, positions)], edits=edits, start=start)[0]

    def generate(
        self, prompts: Batch | Prompts, tokens: int = 16, *, edits: Sequence[Edit] = ()
    ) -> list[str]:
        """Continue each prompt by its most likely tokens, with `edits` in every pass.

        A whole pass for each token, without a cache, so that edits reach every position as it stands.

        Args:
            tokens: how many at most; a text ends before the tokenizer's end of text.

        Raises:
            UnsupportedError: the model predicts no next tokens.
            PromptError: a prompt leaves no room for as many tokens.
        """
        return continuations(self, self._batch(prompts).prompts, tokens, edits)

    def tail(
        self,
        batch: Batch | Prompts,
        layer: int,
        resid: Tensor,
        sites: str | Sequence[SiteRequest] = ("logits",),
        positions: Positions = "all",
        prefix: KeyValues | None = None,
    ) -> Captures:
        """Restart the model's own forward from the state after block `layer` (0: the embedding).

        Args:
            resid: [rows, width, d] states, padded as the batch is; with a `prefix` of s columns,
                [rows, width - s, d] for the columns from s on.
            prefix: keys and values of the columns before.
        """
        read = Read(sites, positions)
        return self.read(self._batch(batch), [read], start=(layer, resid), prefix=prefix)[0]

    @abstractmethod
    def read(
        self,
        batch: Batch,
        reads: Sequence[Read],
        *,
        edits: Sequence[Edit] = (),
        start: Start | None = None,
        prefix: KeyValues | None = None,
    ) -> list[Captures]:
        """Serve several reads from one forward pass; blocks that no read needs are not run.

        Raises:
            SettingError: an unknown site or layer, or one below `start`.
            UnsupportedError: a site that this model does not have or that failed its check.
        """

    # --- gradients -------------------------------------------------------------------------

    @abstractmethod
    def grad(
        self,
        batch: Batch | Prompts,
        scalar: Scalar,
        sites: str | Sequence[SiteRequest],
        positions: Positions = "all",
        at: Positions = "last",
        start: Start | None = None,
    ) -> Captures:
        """Gradients of a scalar of the logits at `sites`; the weights are frozen.

        The batch runs with its padding on the right, where it cannot touch a gradient: the softmax
        of a token that sees padding alone has none.

        Args:
            scalar: (logits [N, vocabulary] at `at`, their places) -> a scalar tensor. Sum over the
                batch, never average, so that each prompt keeps its own gradient.
            start: where to restart, as for `read`; its states are padded on the right.

        Returns:
            Captures whose values are d scalar / d site, in the site's shape (at pattern also for
            the keys of its prompt that a place cannot see).
        """

    def grad_and_values(
        self,
        batch: Batch | Prompts,
        scalar: Scalar,
        sites: str | Sequence[SiteRequest],
        at: Positions = "last",
        start: Start | None = None,
    ) -> tuple[Captures, Captures]:
        """`grad` at every position, and the sites' values of the same run, in one pass where it can be."""
        batch = self._batch(batch).padded_right()
        found = self.grad(batch, scalar, sites, at=at, start=start)
        return found, self.read(batch, [Read(tuple(found.values))], start=start)[0]

    def factors(
        self,
        batch: Batch | Prompts,
        loss: Scalar,
        maps: Sequence[tuple[str, int]],
        positions: Positions = "all",
        at: Positions = "last",
        start: Start | None = None,
    ) -> dict[tuple[str, int], Factors]:
        """Inputs and output gradients of linear maps; no weight gradient is ever formed.

        Maps that one module holds together (GPT-2's q, k and v) come apart.

        Args:
            loss: as `scalar` of `grad`.
            maps: (name, layer) pairs. Of the MLP: ff1, ff2; or up, gate, down where it is gated. Of
                attention: q, k, v, o.
            start: where to restart, as for `grad`.

        Raises:
            UnsupportedError: a map that the family lacks, or quantised weights.
        """
        raise self._cannot("factors")

    def pullback(
        self,
        batch: Batch | Prompts,
        target: SiteRequest,
        sites: str | Sequence[SiteRequest],
    ) -> AbstractContextManager[Pullback]:
        """Vector-Jacobian products of one forward pass, as many as wanted; the weights are frozen.

        In the context a function takes a cotangent of `target`, [rows, width, d] as the batch is
        padded, and gives its product with d target / d site for each of `sites`, in their order
        ([rows, width, d] each). The context holds the model's lock.

        Args:
            batch: padded on the right, where padding cannot touch a gradient; rows may repeat a
                prompt, so that a call pulls back several cotangents of it.
            target: a site above all others.

        >>> with model.pullback(batch, ("resid_post", 6), "resid_post") as pull:  # doctest: +SKIP
        ...     at_each_layer = pull(cotangent)
        """
        raise self._cannot("pullback")

    # --- single blocks, keys and values, the last step --------------------------------------

    def block(
        self,
        batch: Batch | Prompts,
        layer: int,
        states: Tensor,
        part: Part = "block",
        prefix: KeyValues | None = None,
    ) -> Tensor:
        """Run one block, or what one of its branches adds, on given states.

        Args:
            layer: 1..L.
            states: [rows, width, d]: the block's input; for `part="mlp"` of a sequential block the
                state between the branches (resid_mid).
            part: "block" gives the state after it; "attention" and "mlp" what they add.
            prefix: keys and values of the columns before those of `states`.

        Returns:
            [rows, width, d]
        """
        raise self._cannot("block")

    def blocks(self, batch: Batch | Prompts) -> AbstractContextManager[Blocks]:
        """The blocks, to be run one at a time on states, keys and values of the caller's.

        The context holds the model's lock.

        Args:
            batch: prompts of equal length; the blocks take any number of rows of that length.

        Raises:
            SettingError: prompts of unequal length.
        """
        raise self._cannot("blocks")

    def embedded(self, batch: Batch | Prompts, shift: Tensor | None = None) -> Tensor:
        """[rows, width, d] what block 1 reads (resid_post, layer 0).

        Args:
            shift: [rows, width, d_embed] to add to rows of `embedding`, before scales, positions and
                norms; None for nothing.
        """
        raise self._cannot("embedded")

    @property
    def embedding(self) -> Tensor:
        """[vocabulary, d_embed] the token embeddings, before scales, positions and norms."""
        weight: Tensor = self.hf.get_input_embeddings().weight
        return weight.detach()

    def keys_values(self, batch: Batch | Prompts) -> KeyValues:
        """Keys and values of every block and column, to run later columns alone with."""
        raise self._cannot("keys_values")

    @abstractmethod
    def readout(self, resid: Tensor) -> Tensor:
        """[N, d] states after the last block -> [N, vocabulary] logits, by the model's last step.

        Final norm, soft-cap, logit scale and head bias are the model's own. The gradient flows to
        `resid` where it requires one; the weights are frozen.
        """

    def _cannot(self, what: str) -> UnsupportedError:
        return UnsupportedError(
            f"the {self.engine} engine has no {what}: load the model with engine='torch' for it"
        )
