"""One block after the other: what a block shows is looked at before the next one runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from workbench.models.batch import Batch
from workbench.models.captures import Captures, Read
from workbench.models.positions import Positions
from workbench.models.protocol import Model

__all__ = ["by_block"]


def by_block(
    model: Model, batch: Batch, sites: Sequence[str], positions: Positions = "all"
) -> Iterator[tuple[int, Captures]]:
    """Captures of `sites`, layer by layer: each pass restarts from the state after the last block.

    So one layer's tensors are held at a time, and all passes together run each block once. A
    model of two stacks is read in one pass: its decoder has one place, and every pass would run
    the encoder. T5's encoder runs its first block in each pass, which makes the biases.

    Args:
        batch: padded on the right.

    Yields:
        (layer, captures) for layers 1..L.
    """
    if len(model.stacks) > 1:
        whole = model.capture(batch, sites, positions)
        yield from ((layer, whole) for layer in range(1, model.n_layers + 1))
        return
    everywhere, (rows, width) = batch.places(), batch.ids.shape
    start = None
    for layer in range(1, model.n_layers + 1):
        reads = [Read([(name, layer) for name in sites], positions)]
        if layer < model.n_layers:
            reads.append(Read([("resid_post", layer)]))
        captures, *after = model.read(batch, reads, start=start)
        yield layer, captures
        for states in after:
            given = states["resid_post", layer]
            empty = given.new_zeros(rows, width, given.shape[-1])
            start = (layer, everywhere.scatter(empty, given))
