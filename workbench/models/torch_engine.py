"""The reference engine: plain torch hooks on an unmodified Hugging Face model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor
from typing_extensions import override

from workbench.models.attention import tapped, within_prompts
from workbench.models.batch import Batch
from workbench.models.captures import Captures, Read
from workbench.models.changes import ChangedTurns, Changes, merged, said, taps_of
from workbench.models.checks import check
from workbench.models.edits import Edit
from workbench.models.engine import Engine, Factors, Part
from workbench.models.families import family_of
from workbench.models.fingerprint import hash_text
from workbench.models.forward import Start, alone, embedded, keys_values, readout, run
from workbench.models.gradients import Pullback, Scalar, gradients, pullback
from workbench.models.hooks import Attachable, Tap, attached, frozen
from workbench.models.keys_values import KeyValues
from workbench.models.positions import Positions
from workbench.models.quantised import require_plain_weights
from workbench.models.sites import Site, SiteRequest
from workbench.models.steering import Steer, said_of_steering, steering_taps
from workbench.models.taps import edit_taps, gathering, recording, shifted
from workbench.models.weights import Weights
from workbench.prompts import Prompts

if TYPE_CHECKING:
    from workbench.models.blocks import Blocks

__all__ = ["TorchModel"]


class TorchModel(Engine):
    """A hooked model on plain torch hooks: the reference that the other engines are held to."""

    engine = "torch"

    @classmethod
    @override
    def of(
        cls, model: Any, tokenizer: Any, *, name: str, revision: str | None = None
    ) -> TorchModel:
        from workbench.models.encoder_decoder import EncoderDecoderModel

        two_stacks = family_of(model.config).kind == "encoder_decoder"
        return (EncoderDecoderModel if two_stacks else cls)(
            model, tokenizer, name=name, revision=revision
        )

    @property
    def network(self) -> Any:
        """The module that a pass runs."""
        return self.hf

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
        last = max(site.layer for sites in wanted for site in sites)
        taps = self._edit_taps(batch, edits, start, prefix, last)
        columns = []
        for sites, where, out in zip(wanted, places, values, strict=True):
            taps += [
                (self.anatomy.point(s), gathering(where, out, s))
                for s in sites
                if s.name != "logits"
            ]
            columns += [where.column] if _logits_of(sites) else []
        kept = torch.unique(torch.cat(columns)) if columns else None
        with self.lock, torch.no_grad(), tapped(self.network, batch, taps, prefix):
            logits = run(
                self.network,
                self.anatomy,
                batch,
                columns=kept,
                start=start,
                last=last,
                prefix=prefix,
            )
        for sites, where, out in zip(wanted, places, values, strict=True):
            site = _logits_of(sites)
            if site is not None and kept is not None:
                out[site] = logits[where.row, torch.searchsorted(kept, where.column)]
        return [
            Captures({s: out[s] for s in sites}, where, batch, self.readout, self.weights)
            for sites, where, out in zip(wanted, places, values, strict=True)
        ]

    def _edit_taps(
        self,
        batch: Batch,
        edits: Sequence[Edit],
        start: Start | None,
        prefix: KeyValues | None,
        last: int,
    ) -> list[tuple[Attachable, Tap]]:
        """Taps in the order of the edits, but resid_mid last: it builds on resid_pre and attn_out.

        Edits above layer `last` are checked and left out: their blocks are not run.
        """
        taps: list[tuple[Attachable, Tap]] = []
        for edit in sorted(edits, key=lambda edit: edit.target.name == "resid_mid"):
            self._sites([edit.site], start)
            where = shifted(batch.places(edit.positions), prefix)
            made = edit_taps(self.anatomy, edit, where)
            taps += made if edit.target.layer <= last else []
        return taps

    # --- views -----------------------------------------------------------------------------

    @override
    def with_adapter(self, name: str | None) -> Self:
        view = super().with_adapter(name)
        check(view)
        view._take_turns(view.lock)
        return view

    @override
    def with_changes(self, changes: Changes) -> Self:
        view = copy(self)
        view.changes = merged(self.changes, changes)
        view._retake_turns()
        return view

    @override
    def with_steering(self, steers: Sequence[Steer]) -> Self:
        view = copy(self)
        view.steers = (*self.steers, *steers)
        view._retake_turns()
        return view

    def _retake_turns(self) -> None:
        """As a view with changes of its own, or steered its own way: with twins of its own too."""
        self._twins = {}
        inner = self.lock
        self._take_turns(inner._lock if isinstance(inner, ChangedTurns) else inner)

    def _take_turns(self, lock: AbstractContextManager[Any]) -> None:
        """Pass under `lock`, with the changes and the steering on."""
        taps = taps_of(self.anatomy, self.changes)
        taps += steering_taps(self.anatomy, self.steers, self.n_layers)
        self.lock = ChangedTurns(lock, taps) if taps else lock

    @override
    def provenance(self) -> dict[str, Any]:
        found = super().provenance()
        if self.changes:
            found |= {"changes": said(self.changes), "unchanged_weights": super()._weights()}
        if self.steers:
            found |= {"steering": said_of_steering(self.steers)}
        return found

    @override
    def _weights(self) -> str:
        own = super()._weights()
        own = hash_text(f"{own} {said(self.changes)}") if self.changes else own
        return hash_text(f"{own} {said_of_steering(self.steers)}") if self.steers else own

    @property
    @override
    def weights(self) -> Weights:
        return Weights(self.hf, self.anatomy, self.changes)

    # --- gradients -------------------------------------------------------------------------

    @override
    def grad(
        self,
        batch: Batch | Prompts,
        scalar: Scalar,
        sites: str | Sequence[SiteRequest],
        positions: Positions = "all",
        at: Positions = "last",
        start: Start | None = None,
    ) -> Captures:
        batch = self._batch(batch).padded_right()
        start = self._checked_start(batch, start, None)
        wanted = self._sites_inside(sites, start)
        points = [self.anatomy.gradient_point(site) for site in wanted]
        with self.lock:
            grads = gradients(self.network, self.anatomy, batch, scalar, points, at, start)
        where = batch.places(positions)
        values = {s: where.gather(g) for s, g in zip(wanted, grads, strict=True)}
        for site in values:
            if site.name == "pattern":
                values[site] = within_prompts(values[site], batch, where)
        return Captures(values, where, batch, self.readout)

    @override
    def grad_and_values(
        self,
        batch: Batch | Prompts,
        scalar: Scalar,
        sites: str | Sequence[SiteRequest],
        at: Positions = "last",
        start: Start | None = None,
    ) -> tuple[Captures, Captures]:
        batch = self._batch(batch).padded_right()
        values: dict[Site, Tensor] = {}
        wanted = self._sites_inside(sites, start)
        taps: list[tuple[Attachable, Tap]] = [
            (self.anatomy.point(site), recording(values, site)) for site in wanted
        ]
        with self.lock, tapped(self.network, batch, taps):
            found = self.grad(batch, scalar, wanted, at=at, start=start)
        gathered = {site: found.places.gather(value) for site, value in values.items()}
        return found, replace(found, values=gathered)

    @override
    def factors(
        self,
        batch: Batch | Prompts,
        loss: Scalar,
        maps: Sequence[tuple[str, int]],
        positions: Positions = "all",
        at: Positions = "last",
        start: Start | None = None,
    ) -> dict[tuple[str, int], Factors]:
        batch = self._batch(batch).padded_right()
        start = self._checked_start(batch, start, None)
        inputs: dict[int, Tensor] = {}
        before = [self.anatomy.map_point(name, layer, "input") for name, layer in maps]
        points = [self.anatomy.map_point(name, layer, "output") for name, layer in maps]
        for (name, layer), point in zip(maps, points, strict=True):
            require_plain_weights(point.module, f"factors of {name}, layer {layer}")
        taps = [(point, recording(inputs, i)) for i, point in enumerate(before)]
        with self.lock, attached(taps):
            deltas = gradients(self.network, self.anatomy, batch, loss, points, at, start)
        where = batch.places(positions)
        found = {}
        for i, (name, layer) in enumerate(maps):
            delta, own = where.gather(deltas.pop(0)), self.anatomy.map_outputs(name, layer)
            delta = delta if own is None else delta[:, own.to(delta.device)]
            found[name, layer] = Factors(where.gather(inputs.pop(i)), delta)
        return found

    @override
    @contextmanager
    def pullback(
        self,
        batch: Batch | Prompts,
        target: SiteRequest,
        sites: str | Sequence[SiteRequest],
    ) -> Iterator[Pullback]:
        batch = self._batch(batch).padded_right()
        (above,), wanted = self._sites_inside([target]), self._sites_inside(sites)
        points = [self.anatomy.gradient_point(site) for site in wanted]
        with (
            self.lock,
            pullback(
                self.network, self.anatomy, batch, self.anatomy.gradient_point(above), points
            ) as pull,
        ):
            yield pull

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
        found: dict[int, Tensor] = {}
        site = {"block": "resid_post", "attention": "attn_out", "mlp": "mlp_out"}[part]
        tap = (self.anatomy.point(Site(site, layer)), recording(found, 0))
        with (
            self.lock,
            torch.no_grad(),
            alone(self.anatomy, layer, part),
            attached([tap]),
        ):
            start = self._checked_start(batch, (layer - 1, states), prefix)
            run(self.network, self.anatomy, batch, start=start, last=layer, prefix=prefix)
        return found[0]

    @override
    @contextmanager
    def blocks(self, batch: Batch | Prompts) -> Iterator[Blocks]:
        from workbench.models.blocks import Blocks

        with self.lock:
            yield Blocks(self.network, self.anatomy, self._batch(batch))

    @override
    def embedded(self, batch: Batch | Prompts, shift: Tensor | None = None) -> Tensor:
        with self.lock, torch.no_grad():
            return embedded(self.network, self.anatomy, self._batch(batch), shift)

    @override
    def keys_values(self, batch: Batch | Prompts) -> KeyValues:
        with self.lock, torch.no_grad():
            return keys_values(self.network, self.anatomy, self._batch(batch))

    @override
    def readout(self, resid: Tensor) -> Tensor:
        guard = frozen(self.network) if resid.requires_grad else torch.no_grad()
        with self.lock, guard:
            return readout(self.network, self.anatomy, resid)


def _logits_of(sites: Sequence[Site]) -> Site | None:
    return next((site for site in sites if site.name == "logits"), None)
