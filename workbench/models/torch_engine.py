"""The reference engine: plain torch hooks on an unmodified Hugging Face model."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import torch
from torch import Tensor
from typing_extensions import override

from workbench.errors import SettingError
from workbench.models.batch import Batch
from workbench.models.captures import Captures, Read
from workbench.models.edits import Edit
from workbench.models.engine import Engine, Factors, Part
from workbench.models.forward import Start, keys_values, readout, run, silenced
from workbench.models.gradients import Scalar, gradients
from workbench.models.hooks import Point, Tap, attached, frozen
from workbench.models.keys_values import KeyValues
from workbench.models.positions import Positions
from workbench.models.sites import Site, SiteRequest
from workbench.models.taps import edit_taps, gathering, recording, shifted
from workbench.prompts import Prompts

__all__ = ["TorchModel"]


class TorchModel(Engine):
    """A hooked model on plain torch hooks: the reference that the other engines are held to."""

    engine = "torch"

    @override
    def read(
        self,
        batch: Batch,
        reads: Sequence[Read],
        *,
        edits: Sequence[Edit] = (),
        start: Start | None = None,
        prefix: KeyValues | None = None,
    ) -> list[Captures]:
        start = self._checked_start(batch, start, prefix)
        wanted = [self._sites(read.sites, start) for read in reads]
        places = [shifted(batch.places(read.positions), prefix) for read in reads]
        values: list[dict[Site, Tensor]] = [{} for _ in reads]
        taps = self._edit_taps(batch, edits, start, prefix)
        columns = []
        for sites, where, out in zip(wanted, places, values, strict=True):
            taps += [
                (self.anatomy.point(s), gathering(where, out, s))
                for s in sites
                if s.name != "logits"
            ]
            columns += [where.column] if _logits_of(sites) else []
        kept = torch.unique(torch.cat(columns)) if columns else None
        last = max(site.layer for sites in wanted for site in sites)
        with self.lock, torch.no_grad(), attached(taps):
            logits = run(
                self.hf, self.anatomy, batch, columns=kept, start=start, last=last, prefix=prefix
            )
        for sites, where, out in zip(wanted, places, values, strict=True):
            site = _logits_of(sites)
            if site is not None and kept is not None:
                out[site] = logits[where.row, torch.searchsorted(kept, where.column)]
        return [
            Captures({s: out[s] for s in sites}, where, batch, self.readout)
            for sites, where, out in zip(wanted, places, values, strict=True)
        ]

    def _edit_taps(
        self, batch: Batch, edits: Sequence[Edit], start: Start | None, prefix: KeyValues | None
    ) -> list[tuple[Point, Tap]]:
        """Taps in the order of the edits, but resid_mid last: it builds on resid_pre and attn_out."""
        taps: list[tuple[Point, Tap]] = []
        for edit in sorted(edits, key=lambda edit: edit.target.name == "resid_mid"):
            self._sites([edit.site], start)
            where = shifted(batch.places(edit.positions), prefix)
            taps += edit_taps(self.anatomy, edit, where)
        return taps

    # --- gradients -------------------------------------------------------------------------

    @override
    def grad(
        self,
        batch: Batch | Prompts,
        scalar: Scalar,
        sites: str | Sequence[SiteRequest],
        positions: Positions = "all",
        at: Positions = "last",
    ) -> Captures:
        batch = self._batch(batch).padded_right()
        wanted = self._sites(sites)
        if _logits_of(wanted):
            raise SettingError("logits: expected a site inside the network to differentiate at")
        points = [self.anatomy.gradient_point(site) for site in wanted]
        with self.lock:
            grads = gradients(self.hf, self.anatomy, batch, scalar, points, at)
        where = batch.places(positions)
        values = {s: where.gather(g) for s, g in zip(wanted, grads, strict=True)}
        return Captures(values, where, batch, self.readout)

    @override
    def factors(
        self,
        batch: Batch | Prompts,
        loss: Scalar,
        maps: Sequence[tuple[str, int]],
        positions: Positions = "all",
        at: Positions = "last",
    ) -> dict[tuple[str, int], Factors]:
        batch = self._batch(batch).padded_right()
        modules = [self.anatomy.part(layer, self.anatomy.map_path(name)) for name, layer in maps]
        inputs: dict[int, Tensor] = {}
        taps = [(Point(m, "input"), recording(inputs, i)) for i, m in enumerate(modules)]
        with self.lock, attached(taps):
            points = [Point(module, "output") for module in modules]
            deltas = gradients(self.hf, self.anatomy, batch, loss, points, at)
        where = batch.places(positions)
        return {
            (name, layer): Factors(where.gather(inputs[i]), where.gather(deltas[i]))
            for i, (name, layer) in enumerate(maps)
        }

    # --- single blocks, keys and values, the last step --------------------------------------

    @override
    def block(
        self,
        batch: Batch | Prompts,
        layer: int,
        states: Tensor,
        part: Part = "block",
        prefix: KeyValues | None = None,
    ) -> Tensor:
        batch = self._batch(batch)
        block, family = self.anatomy.block(layer), self.anatomy.family
        found: dict[int, Tensor] = {}
        site = {"block": "resid_post", "attention": "attn_out", "mlp": "mlp_out"}[part]
        tap = (self.anatomy.point(Site(site, layer)), recording(found, 0))
        with self.lock, torch.no_grad(), ExitStack() as stack:
            if part == "attention":
                stack.enter_context(silenced(block.get_submodule(family.mlp), returns_tuple=False))
            if part == "mlp":
                stack.enter_context(
                    silenced(block.get_submodule(family.attention), returns_tuple=True)
                )
            stack.enter_context(attached([tap]))
            start = self._checked_start(batch, (layer - 1, states), prefix)
            run(self.hf, self.anatomy, batch, start=start, last=layer, prefix=prefix)
        return found[0]

    @override
    def keys_values(self, batch: Batch | Prompts) -> KeyValues:
        with self.lock, torch.no_grad():
            return keys_values(self.hf, self._batch(batch))

    @override
    def readout(self, resid: Tensor) -> Tensor:
        guard = frozen(self.hf) if resid.requires_grad else torch.no_grad()
        with self.lock, guard:
            return readout(self.hf, self.anatomy, resid)


def _logits_of(sites: Sequence[Site]) -> Site | None:
    return next((site for site in sites if site.name == "logits"), None)
