"""The prompts at one layer: what the site holds, and runs from there on with other values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from workbench.models.batch import Batch, Places
from workbench.models.captures import Read
from workbench.models.edits import Edit
from workbench.models.protocol import Model
from workbench.models.tokens import EncodedPrompt

__all__ = ["ADDED", "Asked", "Level", "levels"]

ROWS = 32  # of one forward, all of like length: a few hundred tokens, which a CPU does best
ADDED = ("resid_post", "mlp_out")
"""Sites where a change is a change of the state after the block, so that runs restart behind it."""


@dataclass(frozen=True)
class Asked:
    """The prompts that are run, on one model.

    Attributes:
        model: the model.
        prompts: each of them once.
        at: [P] the position of each that is read and written.
        ran: is told the tokens of each batch.
    """

    model: Model
    prompts: Sequence[EncodedPrompt]
    at: Tensor
    ran: Callable[[int], None] = lambda _: None

    def chunks(self, rows: Tensor) -> list[Tensor]:
        """Indices into `rows`, those of like length together, as many as one forward takes."""
        return list(torch.split(self.lengths[rows].argsort(stable=True), ROWS))

    @cached_property
    def lengths(self) -> Tensor:
        """[P] tokens of each prompt."""
        return torch.tensor([len(prompt) for prompt in self.prompts])

    @property
    def every(self) -> list[Tensor]:
        """Rows of all prompts, in such chunks."""
        return self.chunks(torch.arange(len(self.prompts)))

    def batch(self, rows: Tensor) -> Batch:
        """Some of the prompts, padded on the right; they are about to be run."""
        self.ran(int(self.lengths[rows].sum()))
        return self.model.batch([self.prompts[row] for row in rows.tolist()])

    def logits(self, rows: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Indices into `rows` and the logits of a plain run after their last tokens."""
        for part in self.chunks(rows):
            found = self.model.read(self.batch(rows[part]), [Read("logits", "last")])[0]
            yield part, found["logits", self.model.n_layers]


@dataclass(frozen=True)
class Level:
    """The prompts at one layer.

    Attributes:
        asked: the prompts.
        site, layer: where.
        values: [P, width] the site at each prompt's own position.
        before, after: [P, longest, d] the states before and after the block; `before` is `after`
            at layer 0.
    """

    asked: Asked
    site: str
    layer: int
    values: Tensor
    before: Tensor
    after: Tensor

    def logits(self, rows: Tensor, moves: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Indices into `rows` and logits after the last tokens, where the site's values are moved.

        Args:
            rows: [n] prompts; one may come several times.
            moves: [n, width] what is added at each row's own position.
        """
        model = self.asked.model
        for part in self.asked.chunks(rows):
            batch = self.asked.batch(rows[part])
            if self.site in ADDED:
                start = self.layer, self._moved(batch, rows[part], moves[part])
                edits = []
            else:
                start = self.layer - 1, self._cut(self.before, batch, rows[part])
                edits = [self._edit(rows[part], moves[part])]
            found = model.read(batch, [Read("logits", "last")], edits=edits, start=start)[0]
            yield part, found["logits", model.n_layers]

    def slopes(self, rows: Tensor, moves: Tensor, wanted: Tensor) -> tuple[float, Tensor]:
        """Summed -log p of wanted tokens in nat, and its gradient [n, width] by the moves.

        For the sites of `ADDED`.

        Args:
            rows, moves: as for `logits`.
            wanted: [n] token of each row.
        """
        loss, slopes = 0.0, torch.zeros_like(moves)
        for part in self.asked.chunks(rows):
            surprisal = _Surprisal(wanted[part].to(moves.device))
            batch = self.asked.batch(rows[part])
            start = self.layer, self._moved(batch, rows[part], moves[part])
            site = "resid_post", self.layer
            found = self.asked.model.grad(batch, surprisal, [site], start=start)
            here = found.places.position == self._at(rows[part])[found.places.row]
            slopes[part.to(slopes.device)] = found[site][here].to(slopes)
            loss += surprisal.sums[-1]
        return loss, slopes

    def _at(self, rows: Tensor) -> Tensor:
        return self.asked.at[rows].to(self.values.device)

    def _cut(self, states: Tensor, batch: Batch, rows: Tensor) -> Tensor:
        return states[rows.to(states.device), : batch.ids.shape[1]]

    def _moved(self, batch: Batch, rows: Tensor, moves: Tensor) -> Tensor:
        states = self._cut(self.after, batch, rows).clone()
        states[torch.arange(len(rows)), self._at(rows)] += moves.to(states)
        return states

    def _edit(self, rows: Tensor, moves: Tensor) -> Edit:
        at = self._at(rows)

        def change(old: Tensor, where: Places) -> Tensor:
            here = (where.position == at[where.row])[:, None]
            return old + torch.where(here, moves[where.row].to(old), torch.zeros_like(old))

        return Edit((self.site, self.layer), change)


@dataclass(frozen=True)
class _Surprisal:
    """The summed -log p of wanted tokens [n], which it notes."""

    wanted: Tensor
    sums: list[float] = field(default_factory=list)

    def __call__(self, logits: Tensor, _: Places) -> Tensor:
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        loss = cross_entropy(wide, self.wanted, reduction="sum")
        self.sums.append(float(loss.detach()))
        return loss


def levels(asked: Asked, site: str, layers: Sequence[int]) -> Iterator[Level]:
    """The prompts at each of `layers` in ascending order; every block is run once over them."""
    after = _states(asked, 0, None)
    reached = 0
    for layer in sorted(layers):
        while reached < layer:
            before, after = after, _states(asked, reached + 1, after)
            reached += 1
        before = after if layer == 0 else before
        yield Level(asked, site, layer, _values(asked, site, layer, before), before, after)


def _states(asked: Asked, layer: int, before: Tensor | None) -> Tensor:
    """[P, longest, d] states after block `layer`; zeros beyond a prompt's end."""
    found: Tensor | None = None
    for rows in asked.every:
        batch = asked.batch(rows)
        start = None
        if before is not None:
            start = layer - 1, before[rows.to(before.device), : batch.ids.shape[1]]
        read = asked.model.read(batch, [Read([("resid_post", layer)])], start=start)[0]
        values = read["resid_post", layer]
        if found is None:
            found = values.new_zeros(len(asked.prompts), int(asked.lengths.max()), values.shape[-1])
        found[rows.to(found.device)[read.places.row], read.places.column] = values
    assert found is not None
    return found


def _values(asked: Asked, site: str, layer: int, before: Tensor) -> Tensor:
    """[P, width] the site at each prompt's own position."""
    found: dict[int, Tensor] = {}
    for rows in asked.every:
        batch = asked.batch(rows)
        start = (
            None
            if layer == 0
            else (layer - 1, before[rows.to(before.device), : batch.ids.shape[1]])
        )
        read = asked.model.read(batch, [Read([(site, layer)])], start=start)[0]
        at = asked.at[rows].to(read.places.position.device)
        here = read.places.position == at[read.places.row]
        found |= dict(zip(rows.tolist(), read[site, layer][here], strict=True))
    return torch.stack([found[row] for row in range(len(asked.prompts))])
