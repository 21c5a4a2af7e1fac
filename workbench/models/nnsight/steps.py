"""A pass as steps in the order in which the model runs, and the one trace that walks them.

An intervention of nnsight waits for each value in turn, so it has to ask for them in that order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from workbench.errors import UnsupportedError
from workbench.models.anatomy import Anatomy
from workbench.models.attention import HeadsPoint, by_head
from workbench.models.batch import Batch
from workbench.models.forward import Start, outputs
from workbench.models.hooks import Attachable, Point, Tap, on_input, on_output
from workbench.models.nnsight.contained import nnsight
from workbench.models.nnsight.tree import Tree

__all__ = ["Step", "steps", "traced"]

Step = tuple[Any, str, Any]
"""An envoy, what of it ("input", "output" or "skip"), and the tap, or what the block gives in its place
(the states, and how many values they are the first of)."""

Taps = Iterable[tuple[Attachable, Tap]]


def steps(
    tree: Tree, anatomy: Anatomy, batch: Batch, taps: Taps, start: Start | None = None
) -> list[Step]:
    """What a pass does inside the network: its taps, and before them the restart."""
    found = _restart(anatomy, start)
    found += [_located(point, tap, batch) for point, tap in taps]
    order = _order(tree, anatomy)
    found.sort(key=lambda step: order[id(step[0]), step[1]])
    return [(tree.envoy(module), side, action) for module, side, action in found]


def _restart(anatomy: Anatomy, start: Start | None) -> list[Step]:
    """The blocks up to the restart are skipped, each with the states to go on from."""
    if start is None:
        return []
    layer, states = start
    if layer == 0:
        return [(anatomy.block(1), "input", lambda _: states)]
    count = anatomy.family.block_outputs
    return [(block, "skip", (states, count)) for block in anatomy.blocks[:layer]]


def _located(point: Attachable, tap: Tap, batch: Batch) -> Step:
    """The module and side of `point`, and `tap` for what nnsight gives there."""
    if isinstance(point, HeadsPoint):
        return point.projection, "input", by_head(tap, point.heads)
    if isinstance(point, Point):
        rows, width = batch.ids.shape
        return point.module, point.side, point.adapted(tap, [rows, width])
    raise UnsupportedError(
        "the nnsight engine does not reach inside attention: load the model with engine='torch' for "
        "q, k, v and pattern"
    )


def _order(tree: Tree, anatomy: Anatomy) -> dict[tuple[int, str], int]:
    """When the model comes by each side of each module that a site is read at."""
    sides: list[tuple[nn.Module, str]] = []
    for layer, block in enumerate(anatomy.blocks, 1):
        inner = [(anatomy.part(layer, path), side) for path, side in _inside(anatomy)]
        sides += [(block, "input"), (block, "skip"), *inner, (block, "output")]
    sides += [(anatomy.final_norm, "output"), (tree.hf, "output")]
    return {(id(module), side): place for place, (module, side) in enumerate(sides)}


def _inside(anatomy: Anatomy) -> list[tuple[str, str]]:
    """Parts of a block in the order in which it runs: attention before the MLP in every family."""
    family = anatomy.family
    attention = [family.attention, family.attn_out]
    if family.attn_out.startswith(f"{family.attention}."):
        attention.reverse()
    inputs = [(site, getattr(family, site)) for site in ("resid_mid", "mlp_act")]
    return [
        (family.attn_z, "input"),
        *[(path, "output") for path in attention],
        *[(path, "input") for site, path in inputs if anatomy.lack(site) is None],
        (family.mlp_out, "output"),
    ]


def traced(
    tree: Tree,
    inputs: Mapping[str, Any],
    walked: list[Step],
    found: dict[int, Tensor],
    backend: Any,
) -> dict[int, Tensor]:
    """Run the model once, walk the steps, and stop behind the last one.

    Args:
        found: what the taps write into; it is what comes back, also from another machine.
        backend: nnsight's name for where the block below runs; None for here.
    """
    library = nnsight()
    with tree.root.trace(**inputs, backend=backend) as tracer:
        walk(walked)
        found = library.save(found)
        tracer.stop()
    return found


def walk(walked: list[Step]) -> None:
    """Wait for each value in turn; a tap's answer goes on in its place."""
    for envoy, side, action in walked:
        if side == "skip":
            states, count = action
            envoy.skip(outputs(states.to(envoy.device), count))
        elif side == "input":
            new = on_input(action, *envoy.inputs)
            if new is not None:
                envoy.inputs = new
        else:
            new = on_output(action, envoy.output)
            if new is not None:
                envoy.output = new
