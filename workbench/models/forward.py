"""One forward pass of an unmodified model, whole or restarted: which blocks run, and on what."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from workbench.errors import ModelError, UnsupportedError
from workbench.models.anatomy import Anatomy
from workbench.models.batch import Batch, DecoderBatch
from workbench.models.hooks import Point, Tap, attached, replaced_forward
from workbench.models.keys_values import KeyValues
from workbench.models.vocabulary import in_parts

__all__ = [
    "Part",
    "Start",
    "alone",
    "embedded",
    "finite_padding",
    "inputs",
    "keys_values",
    "one_column",
    "only_blocks",
    "outputs",
    "readout",
    "require_eval",
    "run",
    "silenced",
]

Part = Literal["block", "attention", "mlp"]

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
    require_eval(hf)
    final = anatomy.n_layers if last is None else last
    given = inputs(anatomy, batch, prefix)
    with (
        attached(finite_padding(anatomy, batch, prefix)),
        only_blocks(anatomy, range(first, final + 1), start),
    ):
        if columns is None:
            out: Tensor = hf.base_model(**given)[0]
            return out
        if anatomy.family.kind != "decoder":  # no such model takes logits_to_keep
            return _logits(hf(**given))[:, columns]
        return _logits(hf(**given, logits_to_keep=columns))


def _logits(output: Any) -> Tensor:
    logits: Tensor = output.logits
    return logits


def require_eval(hf: nn.Module) -> None:
    """Refuse a model in training mode.

    Raises:
        ModelError: it is.
    """
    if hf.training:
        raise ModelError("the model is in training mode, so dropout would act: call model.eval()")


def inputs(anatomy: Anatomy, batch: Batch, prefix: KeyValues | None) -> dict[str, Any]:
    """What the model is called with."""
    if prefix is not None:
        _require_columns_apart(anatomy)
    if isinstance(batch, DecoderBatch):
        return _with_encoder(batch)
    if not anatomy.causal:
        return {
            "input_ids": batch.ids,
            "attention_mask": batch.mask,
            "position_ids": batch.position_ids,
        }
    begin = 0 if prefix is None else prefix.width
    return {
        "input_ids": batch.ids[:, begin:],
        "attention_mask": batch.attention_mask,
        "position_ids": batch.position_ids[:, begin:],
        "past_key_values": None if prefix is None else prefix.as_cache(),
        "use_cache": False,
    }


def _with_encoder(batch: DecoderBatch) -> dict[str, Any]:
    encoded = {} if batch.encoded is None else {"encoder_outputs": (batch.encoded,)}
    return encoded | {
        "input_ids": batch.source.ids,
        "attention_mask": batch.source.mask,
        "decoder_input_ids": batch.ids,
        "use_cache": False,
    }


def finite_padding(
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
        return torch.where(keep.to(out.device), out, torch.zeros_like(out))

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
                stack.enter_context(_passed_over(anatomy, layer))
        if start is not None:
            stack.enter_context(_started(anatomy, *start))
        yield


def _passed_over(anatomy: Anatomy, layer: int, states: Tensor | None = None) -> Any:
    """A context in which a block gives `states`, or its own input, and costs nothing.

    Only a first block that makes what the later ones need (T5's biases) runs for that.
    """
    family, own = anatomy.family, anatomy.block(layer).forward

    def forward(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        given = hidden_states if states is None else states
        if not family.passes_on:
            return outputs(given, family.block_outputs)
        if layer == 1:
            return (given, *own(hidden_states, *args, **kwargs)[1:])
        return (given, *[args[index - 1] for index in family.passes_on])

    return replaced_forward(anatomy.block(layer), forward, skips=True)


def outputs(states: Tensor, count: int) -> Any:
    """`states` as the first of the `count` values that a module returns."""
    return states if count == 1 else (states, *[None] * (count - 1))


@contextmanager
def _started(anatomy: Anatomy, layer: int, states: Tensor) -> Iterator[None]:
    if layer > 0:
        with _passed_over(anatomy, layer, states):
            yield
        return
    # Before every other tap, so that they see the given states and not the model's embedding.
    handle = Point(anatomy.block(1), "input").attach(lambda _: states, first=True)
    try:
        yield
    finally:
        handle.remove()


def silenced(module: nn.Module, count: int, adds_residual: bool) -> Any:
    """A context in which `module` (attention or MLP) adds nothing and costs nothing.

    Args:
        count: how many values it returns.
        adds_residual: whether it returns the sum with its second argument, the residual stream.
    """

    def nothing(*args: Any, **kwargs: Any) -> Any:
        if adds_residual:
            return outputs(args[1], count)
        return outputs(torch.zeros_like(args[0] if args else kwargs["hidden_states"]), count)

    return replaced_forward(module, nothing, skips=True)


@contextmanager
def alone(anatomy: Anatomy, layer: int, part: Part) -> Iterator[None]:
    """Within it, the branches of block `layer` beside `part` add nothing; of "block" all run.

    An MLP that is no module of its own still runs.
    """
    family = anatomy.family
    silent = {"attention": (family.mlp,), "mlp": (family.attention, family.cross_attention)}
    count = family.mlp_outputs if part == "attention" else family.attention_outputs
    with ExitStack() as stack:
        for path in filter(None, silent.get(part, ())):
            module = anatomy.part(layer, path)
            stack.enter_context(silenced(module, count, family.adds_residual))
        yield


def embedded(hf: Any, anatomy: Anatomy, batch: Batch, shift: Tensor | None) -> Tensor:
    """[rows, width, d] what block 1 reads when `shift` is added to rows of the embedding matrix."""
    found: list[Tensor] = []
    taps: list[tuple[Point, Tap]] = [(Point(anatomy.block(1), "input"), found.append)]
    if shift is not None:
        module = hf.get_input_embeddings()
        scale = getattr(module, "embed_scale", 1.0)  # Gemma's module gives scaled rows
        taps.append((Point(module, "output"), lambda out: out + shift.to(out) * scale))
    with attached(taps):
        run(hf, anatomy, batch, last=0)
    return found[0].clone()


def readout(hf: Any, anatomy: Anatomy, resid: Tensor) -> Tensor:
    """[N, d] states after the last block -> [N, vocabulary] logits, by the model's own last step.

    The model runs with every block passed over, so that its final norm, soft-cap, logit scale and
    head bias are its own.
    """
    batch = one_column(len(resid), hf.get_input_embeddings().weight.device)
    if anatomy.family.kind == "encoder_decoder":
        batch = _decoded_alone(batch, resid.detach()[:, None])
    start = (anatomy.n_layers, resid[:, None])
    with in_parts(hf.get_output_embeddings()):
        return run(hf, anatomy, batch, columns=batch.ids[0], start=start)[:, 0]


def _decoded_alone(batch: Batch, encoded: Tensor) -> DecoderBatch:
    """`batch` for a decoder whose encoder need not run, since every block is passed over."""
    parts = batch.prompts, batch.ids, batch.mask, batch.position_ids, batch.starts
    return DecoderBatch(*parts, source=batch, encoded=encoded)


def one_column(rows: int, device: torch.device) -> Batch:
    """A batch of one token a row, for a pass in which every block is passed over."""
    zeros = torch.zeros(rows, 1, dtype=torch.long, device=device)
    return Batch((), zeros, torch.ones_like(zeros), zeros, zeros[:, 0])


def _require_columns_apart(anatomy: Anatomy) -> None:
    if anatomy.family.kind != "decoder":
        raise UnsupportedError(
            f"{anatomy.config.model_type} is no decoder alone: its columns cannot be run apart, so it "
            "has no keys_values and takes no prefix"
        )


def keys_values(hf: Any, anatomy: Anatomy, batch: Batch) -> KeyValues:
    """Keys and values of every block and column of `batch`."""
    from transformers import DynamicCache

    _require_columns_apart(anatomy)
    cached = {"past_key_values": DynamicCache(), "use_cache": True}
    with attached(finite_padding(anatomy, batch, None)):
        out = hf.base_model(**inputs(anatomy, batch, None) | cached)
    return KeyValues.of_cache(out.past_key_values)
