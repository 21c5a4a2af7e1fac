"""Single blocks of an unmodified model on given states, with keys and values handled by the caller.

What a model hands its blocks beside the states (masks, rotations, biases) depends on the columns
alone where no row is padded. It is taken from the model's own forward, once for each range of
columns; a block is then called as the model would call it, on any number of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from workbench.errors import SettingError
from workbench.models.anatomy import Anatomy
from workbench.models.batch import Batch
from workbench.models.forward import alone, inputs, outputs, require_eval
from workbench.models.hooks import Tap, attached, replaced_forward
from workbench.models.keys_values import KeyValues
from workbench.models.sites import Site

__all__ = ["Blocks", "Pair", "partly", "reused"]

Pair = tuple[Tensor, Tensor]
"""Keys and values of one block: [rows, key heads, columns, d_head] each."""

Call = tuple[tuple[Any, ...], dict[str, Any]]


class Blocks:
    """The blocks of a model, to be called one at a time while its lock is held.

    Attributes:
        anatomy: where its parts are.
        width: how many columns the rows have.
        apart: whether columns can be run apart from those before them.
        block_tokens: how many tokens have passed through a block so far.
    """

    def __init__(self, network: Any, anatomy: Anatomy, batch: Batch) -> None:
        if not bool(batch.mask.all()):
            raise SettingError("rows of unequal length: expected prompts of equal length")
        require_eval(network)
        self.anatomy = anatomy
        self.width = batch.ids.shape[1]
        self.apart = anatomy.family.kind == "decoder"
        self.block_tokens = 0
        self._network = network
        self._batch = batch
        self._calls: dict[tuple[int, int, int], list[Call]] = {}

    def run(
        self,
        layer: int,
        states: Tensor,
        *,
        first: int = 0,
        before: Pair | None = None,
        taps: Sequence[tuple[Site, Tap]] = (),
    ) -> tuple[Tensor, Pair | None]:
        """The states after block `layer`, and the keys and values of its columns.

        Args:
            layer: 1..L.
            states: [rows, columns, d] before the block.
            first: the column of the first of them.
            before: keys and values of the columns below `first`; one row serves all, and rows that
                divide the number of rows are repeated in order (row r has those of r mod n).
            taps: what sees or replaces values at the block's sites, [rows, columns, ...].

        Returns:
            [rows, columns, d], and the keys and values of these columns alone (None of a model whose
            columns cannot be run apart).
        """
        cache = _Beside(before, len(states)) if self.apart else None
        args, kwargs = self._call(layer, first, first + states.shape[1], len(states))
        args = tuple(cache if isinstance(value, DynamicCache) else value for value in args)
        kwargs = {k: cache if isinstance(v, DynamicCache) else v for k, v in kwargs.items()}
        self.block_tokens += states.shape[0] * states.shape[1]
        points = [(self.anatomy.point(site), tap) for site, tap in taps]
        with torch.no_grad(), attached(points):
            found = self.anatomy.block(layer)(states, *args, **kwargs)
        after = found[0] if isinstance(found, tuple) else found
        return after, None if cache is None else cache.own

    def branch(self, layer: int, part: Literal["attention", "mlp"], states: Tensor) -> Tensor:
        """What one branch of block `layer` adds to the states that it is given, by itself.

        A block x -> x + F(x) -> ... + G(...) of sequential branches is F and G after each other; one
        of parallel branches is x + F(x) + G(x).

        Args:
            layer: 1..L.
            part: "attention" (F) or "mlp" (G).
            states: [rows, columns, d].

        Returns:
            [rows, columns, d] as it is added: behind a norm or a multiplier that the family has there.

        Raises:
            UnsupportedError: a family whose blocks are not sums of these two branches.
        """
        site = Site("attn_out" if part == "attention" else "mlp_out", layer)
        found: list[Tensor] = []
        taps = [(site, lambda value: found.append(value.clone()))]  # some blocks add in place
        with alone(self.anatomy, layer, part):
            self.run(layer, states, taps=taps)
        return found[0]

    def projections(self, layer: int) -> list[nn.Module]:
        """The modules of block `layer` that make queries, keys and values; empty where another's hooks
        hang on one, or the family's names are not this network's.
        """
        known = type(self.anatomy) is Anatomy and {"q", "k", "v"} <= set(self.anatomy.family.maps)
        if not known:
            return []
        found = list(dict.fromkeys(self.anatomy.map_module(name, layer) for name in "qkv"))
        hooked = any(module._forward_hooks or module._forward_pre_hooks for module in found)
        return [] if hooked else found

    def _call(self, layer: int, first: int, end: int, rows: int) -> Call:
        if (first, end, 1) not in self._calls:
            self._calls[first, end, 1] = self._recorded(first, end, 1)
        if _by_row(self._calls[first, end, 1][layer - 1]):
            if (first, end, rows) not in self._calls:
                self._calls[first, end, rows] = self._recorded(first, end, rows)
            return self._calls[first, end, rows][layer - 1]
        return self._calls[first, end, 1][layer - 1]

    def _recorded(self, first: int, end: int, rows: int) -> list[Call]:
        """What the model hands each block for columns first..end-1 behind those before them."""
        calls: list[Call] = []
        batch = _part(self._batch, rows, end)
        given = inputs(self.anatomy, batch, self._nothing_before(first, rows) if first else None)
        if self.apart:
            given |= {"past_key_values": given["past_key_values"] or DynamicCache()}
            given |= {"use_cache": True}
        with torch.no_grad(), ExitStack() as stack:
            for layer in range(1, self.anatomy.n_layers + 1):
                noting = self._noting(calls)
                stack.enter_context(replaced_forward(self.anatomy.block(layer), noting))
            self._network.base_model(**given)
        return calls

    def _noting(self, calls: list[Call]) -> Callable[..., Any]:
        def forward(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
            calls.append((args, kwargs))
            return outputs(hidden_states, self.anatomy.family.block_outputs)

        return forward

    def _nothing_before(self, columns: int, rows: int) -> KeyValues:
        """Keys and values of the right number of columns, for a pass in which no block runs."""
        empty = torch.zeros(rows, 1, columns, 1, device=self._batch.device)
        return KeyValues(tuple((empty, empty) for _ in range(self.anatomy.n_layers)))


class _Beside(DynamicCache):  # type: ignore[misc]
    """A cache that gives a block the keys and values before its own, and keeps its own apart."""

    def __init__(self, before: Pair | None, rows: int) -> None:
        super().__init__()
        self.before = before
        self.rows = rows
        self.own: Pair | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> Pair:
        """Note a block's own keys and values; give them behind those before."""
        self.own = (key_states, value_states)
        if self.before is None:
            return self.own
        keys, values = (
            torch.cat([_repeated(old, self.rows), new], dim=2)
            for old, new in zip(self.before, self.own, strict=True)
        )
        return keys, values

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """How many columns lie before."""
        return 0 if self.before is None else int(self.before[0].shape[2])


def _repeated(values: Tensor, rows: int) -> Tensor:
    """[n, ...] repeated in order to [rows, ...]."""
    if len(values) in (1, rows):
        return values.expand(rows, *values.shape[1:])
    return values.repeat(rows // len(values), *[1] * (values.dim() - 1))


def _by_row(call: Call) -> bool:
    """Whether what a block is handed has an axis of rows and heads, which no other batch shares."""
    return call[1].get("alibi") is not None


def _part(batch: Batch, rows: int, end: int) -> Batch:
    """`rows` times the first row, and the columns below `end`."""
    ids, mask, positions = (
        values[:1, :end].expand(rows, -1) for values in (batch.ids, batch.mask, batch.position_ids)
    )
    return Batch(batch.prompts[:1] * rows, ids, mask, positions, batch.starts[:1].expand(rows))


@contextmanager
def reused(known: Mapping[nn.Module, Tensor], columns: int) -> Iterator[None]:
    """Within it, modules give for their last rows what is known from column `columns` on.

    Args:
        known: by module, what it gives for the last rows, [rows, all columns, ...].
        columns: how many of the first columns of these rows are computed all the same.
    """
    with ExitStack() as stack:
        for module, outputs in known.items():
            forward = _with_known(module.forward, outputs, columns)
            stack.enter_context(replaced_forward(module, forward))
        yield


def _with_known(
    own: Callable[[Tensor], Tensor], known: Tensor, columns: int
) -> Callable[[Tensor], Tensor]:
    def forward(states: Tensor) -> Tensor:
        split = len(states) - len(known)
        last = known
        if columns:
            new = own(states[split:, :columns].contiguous())
            last = torch.cat([new, known[:, columns:]], dim=1)
        return torch.cat([own(states[:split].contiguous()), last]) if split else last

    return forward


@contextmanager
def partly(
    anatomy: Anatomy, layer: int, seen: Collection[str], *, attention: Tensor, mlp: Tensor
) -> Iterator[None]:
    """Within it, not every token passes through attention's output map and the MLP of block `layer`.

    For tokens of which nobody reads what the two give: their outputs are zeros. An MLP that is no module
    of its own runs whole, as does what has one of the sites `seen` inside.

    Args:
        seen: names of the block's sites that taps see, every column of them.
        attention: [rows, columns] whether a token passes through attention's output map.
        mlp: the same for the MLP.
    """
    paths = {anatomy.family.attn_z: attention, anatomy.family.mlp: mlp}
    with ExitStack() as stack:
        for path, chosen in paths.items():
            if not path or chosen.all() or any(_inside(anatomy, path, name) for name in seen):
                continue
            module = anatomy.part(layer, path)
            stack.enter_context(replaced_forward(module, _of_some(module.forward, chosen)))
        yield


def _inside(anatomy: Anatomy, path: str, name: str) -> bool:
    """Whether what taps see at a site has passed through a part of what lies at `path`, or may have."""
    if type(anatomy) is not Anatomy:
        return True
    own: str = getattr(anatomy.family, "attn_z" if name == "z" else name)
    return own.startswith(f"{path}.")


def _of_some(own: Callable[..., Any], chosen: Tensor) -> Callable[..., Any]:
    if not chosen.any():  # what no token passes through says no width
        chosen = chosen.clone()
        chosen[0, 0] = True

    def forward(states: Tensor, *args: Any) -> Any:
        # Some modules take the residual stream beside what they read.
        found = own(*(value[chosen][None] for value in (states, *args)))
        first, *rest = found if isinstance(found, tuple) else (found,)
        whole = first.new_zeros(*states.shape[:2], first.shape[-1])
        whole[chosen] = first[0]
        return (whole, *rest) if isinstance(found, tuple) else whole

    return forward
