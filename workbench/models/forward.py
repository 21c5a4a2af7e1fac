"""One forward pass of an unmodified model, whole or restarted: which blocks run, and on what."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from workbench.errors import ModelError
from workbench.models.anatomy import Anatomy
from workbench.models.batch import Batch
from workbench.models.hooks import Point, Tap, attached, replaced_forward
from workbench.models.keys_values import KeyValues

__all__ = ["Start", "keys_values", "only_blocks", "readout", "run", "silenced"]

Start = tuple[int, Tensor]
"""Restart: (layer, states [rows, width, d] after that block; layer 0 is the embedding)."""


def run(
    hf: Any,
    anatomy: Anatomy,
    batch: Batch,
    *,
    columns: Tensor | None = None,
    start: Start | None = None,
    last: int | None = None,
    prefix: KeyValues | None = None,
) -> Tensor:
    """Run the model's own forward.

    Args:
        columns: [C] columns of the (remaining) batch whose logits are wanted; None runs the base
            model without its unembedding.
        start: where to restart; the blocks up to there are not run.
        last: the last block to run; None for all.
        prefix: keys and values of the columns before those that are run.

    Returns:
        [rows, C, vocabulary] logits; without `columns` the base model's last state, for nobody.

    Raises:
        ModelError: the model is in training mode.
    """
    first = 1 if start is None else start[0] + 1
    if hf.training:
        raise ModelError("the model is in training mode, so dropout would act: call model.eval()")
    final = anatomy.n_layers if last is None else last
    inputs = _inputs(batch, prefix)
    with (
        attached(_finite_padding(anatomy, batch, prefix)),
        only_blocks(anatomy, range(first, final + 1), start),
    ):
        if columns is None:
            out: Tensor = hf.base_model(**inputs)[0]
            return out
        logits: Tensor = hf(**inputs, logits_to_keep=columns).logits
        return logits


def _inputs(batch: Batch, prefix: KeyValues | None) -> dict[str, Any]:
    begin = 0 if prefix is None else prefix.width
    return {
        "input_ids": batch.ids[:, begin:],
        "attention_mask": batch.attention_mask,
        "position_ids": batch.position_ids[:, begin:],
        "past_key_values": None if prefix is None else prefix.as_cache(),
        "use_cache": False,
    }


def _finite_padding(
    anatomy: Anatomy, batch: Batch, prefix: KeyValues | None
) -> list[tuple[Point, Tap]]:
    """Keep attention's output finite on left padding, whose softmax runs over nothing.

    Attention to padding has weight 0, but 0 times a value that is not a number is not 0: without
    this, one layer later every token of the row is lost (seen in float64 with eager attention).
    """
    if not batch.padded_left:
        return []
    begin = 0 if prefix is None else prefix.width
    keep = batch.mask[:, begin:, None].bool()

    def tap(out: Tensor) -> Tensor:
        return torch.where(keep, out, torch.zeros_like(out))

    layers = range(1, anatomy.n_layers + 1)
    return [
        (Point(anatomy.part(layer, anatomy.family.attention), "output"), tap) for layer in layers
    ]


@contextmanager
def only_blocks(
    anatomy: Anatomy, layers: Collection[int], start: Start | None = None
) -> Iterator[None]:
    """Every block but `layers` passes its input on; `start` is what the block before them gives."""
    with ExitStack() as stack:
        for layer in range(1, anatomy.n_layers + 1):
            if layer not in layers:
                stack.enter_context(replaced_forward(anatomy.block(layer), _pass_on))
        if start is not None:
            stack.enter_context(_started(anatomy, *start))
        yield


@contextmanager
def _started(anatomy: Anatomy, layer: int, states: Tensor) -> Iterator[None]:
    if layer > 0:
        with replaced_forward(anatomy.block(layer), lambda *args, **kwargs: states):
            yield
        return
    # Before every other tap, so that they see the given states and not the model's embedding.
    handle = Point(anatomy.block(1), "input").attach(lambda _: states, first=True)
    try:
        yield
    finally:
        handle.remove()


def _pass_on(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return hidden_states


def silenced(module: nn.Module, returns_tuple: bool) -> Any:
    """A context in which `module` (attention or MLP) adds nothing and costs nothing."""

    def zeros(*args: Any, **kwargs: Any) -> Any:
        states = args[0] if args else kwargs["hidden_states"]
        zero = torch.zeros_like(states)
        return (zero, None) if returns_tuple else zero

    return replaced_forward(module, zeros)


def readout(hf: Any, anatomy: Anatomy, resid: Tensor) -> Tensor:
    """[N, d] states after the last block -> [N, vocabulary] logits, by the model's own last step.

    The model runs with every block passed over, so that its final norm, soft-cap, logit scale and
    head bias are its own.
    """
    n = resid.shape[0]
    zeros = torch.zeros(n, 1, dtype=torch.long, device=hf.get_input_embeddings().weight.device)
    batch = Batch((), zeros, torch.ones_like(zeros), zeros, zeros[:, 0])
    start = (anatomy.n_layers, resid[:, None])
    columns = zeros.new_zeros(1)
    return run(hf, anatomy, batch, columns=columns, start=start)[:, 0]


def keys_values(hf: Any, batch: Batch) -> KeyValues:
    """Keys and values of every block and column of `batch`."""
    from transformers import DynamicCache

    out = hf.base_model(
        **_inputs(batch, None) | {"past_key_values": DynamicCache(), "use_cache": True}
    )
    return KeyValues.of_cache(out.past_key_values)
