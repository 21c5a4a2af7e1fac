"""Effects of senders through chosen receivers alone: two passes a sender (Wang et al. 2022, app. B).

1. The base run with the sender's value from the source run. Attention of every later block stays at
   its base values (and MLPs too, where they are frozen), so that the sender reaches a receiver by the
   residual stream alone. What each receiver would get is noted, and not used.
2. The base run, with the receivers' inputs as they were noted, and everything else recomputed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from probes.causal.cells import Table
from probes.causal.contrast import Contrast
from probes.causal.effects import Direction, Effects
from probes.causal.metrics import Metric, scores
from probes.causal.restarts import whole_table
from probes.causal.scorer import Scorer
from probes.patching.receivers import Receiver
from workbench.models.batch import Batch, Places
from workbench.models.captures import Read
from workbench.models.edits import Change, Edit
from workbench.models.protocol import Model
from workbench.models.sites import Site

__all__ = ["Sender", "blocks_run", "through"]

CPU_TOKENS = 2048  # in one pass
CUDA_TOKENS = 65536
NAMES = ("z", "attn_out", "mlp_out", "resid_post")

Sender = tuple[Site, int | None]
"""Its site, z or mlp_out, and of z the head."""


def through(
    model: Model,
    contrast: Contrast,
    senders: Sequence[Sender],
    receivers: Sequence[Receiver],
    *,
    metric: Metric,
    direction: Direction,
    frozen: bool,
    sent: Sequence[int],
    received: Sequence[int],
    pace: Callable[[float], None],
) -> Effects:
    """Score the base run with the receivers' inputs as each sender changes them.

    Args:
        contrast: of texts of equal length.
        frozen: whether MLPs between keep their base values.
        sent: columns at which the sender is put in.
        received: columns at which the receivers get what was noted.
    """
    clean, corrupted = (
        whole_table(model, contrast.batch, states.flatten(0, 1), NAMES)
        for states in (contrast.clean, contrast.corrupted)
    )
    goal, end = contrast.goal, Site("resid_post", model.n_layers)
    logits = [_read_out(model, table[end][:, -goal.tokens :]) for table in (clean, corrupted)]
    score = Scorer(metric, goal, logits[0])
    tables = (corrupted, clean) if direction == "denoising" else (clean, corrupted)
    paths = _Paths(model, contrast.batch, *tables, receivers, frozen, sent, received, goal.tokens)
    ends = [scores(metric, one, goal, logits[0]) for one in logits]
    unchanged = ends[1] if direction == "denoising" else ends[0]
    patched = list[Tensor]()
    for part in paths.parts(senders):
        run = paths.run(part)
        patched.append(unchanged.expand(len(part), -1) if run is None else score(run))
        pace(sum(map(len, patched)) / len(senders))
    return Effects(
        ends[0],
        ends[1][:, None],
        torch.cat(patched)[..., None],
        logits[0][:, 0].argmax(-1),
        contrast.batch.ids.numel() * blocks_run(senders, receivers, model.n_layers),
        "restart",
    )


def blocks_run(senders: Sequence[Sender], receivers: Sequence[Receiver], n_layers: int) -> int:
    """How many blocks run for each token: the two runs whole, and two passes a sender."""
    total = 2 * n_layers
    for site, _ in senders:
        layers = [one.site.layer for one in receivers if one.reached_from(site)]
        if layers:
            total += max(layers) - site.layer + 1 + n_layers - min(layers) + 1
    return total


def _read_out(model: Model, states: Tensor) -> Tensor:
    """[rows, tokens, vocabulary] of [rows, tokens, d]."""
    return model.readout(states.flatten(0, 1)).view(*states.shape[:2], -1)


@dataclass(frozen=True)
class _Paths:
    """The two runs, and what of a path is fixed."""

    model: Model
    batch: Batch
    base: Table
    source: Table
    receivers: Sequence[Receiver]
    frozen: bool
    sent: Sequence[int]
    received: Sequence[int]
    tail: int

    def parts(self, senders: Sequence[Sender]) -> Iterator[list[Sender]]:
        """Senders of one site, as many as go into a pass."""
        most = CUDA_TOKENS if self.model.device.type == "cuda" else CPU_TOKENS
        size = max(1, most // self.batch.ids.numel())
        for _, those in groupby(senders, key=lambda sender: sender[0]):
            every = list(those)
            for start in range(0, len(every), size):
                yield every[start : start + size]

    def run(self, senders: Sequence[Sender]) -> Tensor | None:
        """Logits [senders * rows, tail, vocabulary]; None where no receiver is reached."""
        site = senders[0][0]
        reached = self._reached(site)
        if not reached:
            return None
        batch = self.model.batch(list(self.batch.prompts) * len(senders))
        noted = self._noted(batch, senders, reached)
        edits = [self._received(where, reached, values) for where, values in noted.items()]
        read = Read("logits", range(batch.ids.shape[1] - self.tail, batch.ids.shape[1]))
        start = min(one.site.layer for one in reached) - 1
        (found,) = self.model.read(batch, [read], edits=edits, start=self._start(start, senders))
        return found["logits", self.model.n_layers].view(len(batch), self.tail, -1)

    def _reached(self, sender: Site) -> list[Receiver]:
        return [one for one in self.receivers if one.reached_from(sender)]

    def _start(self, layer: int, senders: Sequence[Sender]) -> tuple[int, Tensor]:
        states = self.base[Site("resid_post", layer)]
        return layer, states.repeat(len(senders), 1, 1)

    def _noted(
        self, batch: Batch, senders: Sequence[Sender], reached: Sequence[Receiver]
    ) -> dict[Site, Tensor]:
        """What each receiver's site would be, [senders * rows, width, ...]."""
        site, sites = senders[0][0], sorted({one.site for one in reached})
        last = max(one.layer for one in sites)
        found: dict[Site, Tensor] = {}
        edits = [self._sent(senders)]
        for layer in range(site.layer, last + 1):
            attention, mlp = Site("attn_out", layer), Site("mlp_out", layer)
            if layer > site.layer:
                edits.append(self._kept(attention, len(senders)))
            if mlp in sites:
                edits.append(self._noting(mlp, found, len(senders)))
            elif self.frozen and (layer > site.layer or site.name == "z"):
                edits.append(self._kept(mlp, len(senders)))
        inside = [one for one in sites if one.name != "mlp_out"]
        # Blocks run as far as something is read, and an MLP that is noted is no read.
        reads = [Read([Site("resid_post", last)], "last"), *([Read(inside)] if inside else [])]
        start = self._start(site.layer - 1, senders)
        caught = self.model.read(batch, reads, edits=edits, start=start)[-1]
        for one in inside:
            found[one] = caught[one].view(*batch.ids.shape, *caught[one].shape[1:])
        return found

    def _sent(self, senders: Sequence[Sender]) -> Edit:
        """The senders' values from the source run, each in its own rows."""
        site = senders[0][0]
        base, source = (table[site] for table in (self.base, self.source))
        columns = torch.tensor(list(self.sent), device=base.device)
        values = base.repeat(len(senders), *[1] * (base.dim() - 1)).clone()
        for number, (_, head) in enumerate(senders):
            own = values[number * len(base) : (number + 1) * len(base)]
            if head is None:
                own[:, columns] = source[:, columns]
            else:
                own[:, columns, head] = source[:, columns, head]
        return Edit(site, _set(values))

    def _kept(self, site: Site, times: int) -> Edit:
        return Edit(site, _set(self.base[site].repeat(times, 1, 1)))

    def _noting(self, site: Site, found: dict[Site, Tensor], times: int) -> Edit:
        """Notes an MLP's output; what goes on is the base run's where MLPs are frozen."""
        base = self.base[site].repeat(times, 1, 1)

        def change(old: Tensor, _: Places) -> Tensor:
            found[site] = old.view(base.shape).clone()
            return base.flatten(0, 1).to(old) if self.frozen else old

        return Edit(site, change)

    def _received(self, site: Site, reached: Sequence[Receiver], noted: Tensor) -> Edit:
        """The receivers of one site with what was noted for them."""
        heads = [one.head for one in reached if one.site == site and one.head is not None]
        columns = torch.tensor(list(self.received), device=noted.device)

        def change(old: Tensor, _: Places) -> Tensor:
            values = old.view(noted.shape).clone()
            if not heads:
                values[:, columns] = noted[:, columns].to(values)
            for head in heads:
                values[:, columns, head] = noted[:, columns, head].to(values)
            return values.flatten(0, 1)

        return Edit(site, change)


def _set(values: Tensor) -> Change:
    """The change to given values [rows, width, ...]."""
    return lambda old, _: values.flatten(0, 1).to(old)
