"""The nnsight engine: every pass is one nnsight trace of an unmodified Hugging Face model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor
from typing_extensions import override

from workbench.errors import ModelError, SettingError, UnsupportedError
from workbench.models.batch import Batch, Places
from workbench.models.captures import Captures, Read
from workbench.models.edits import Edit
from workbench.models.engine import Engine
from workbench.models.forward import Start, embedded, finite_padding, inputs, readout, require_eval
from workbench.models.gradients import Scalar, keep, slopes
from workbench.models.hooks import Attachable, Point, Tap, frozen
from workbench.models.keys_values import KeyValues
from workbench.models.nnsight.contained import is_nnsight
from workbench.models.nnsight.steps import steps, traced
from workbench.models.nnsight.tree import Tree
from workbench.models.positions import Positions
from workbench.models.sites import PRODUCT_SITES, Site, SiteRequest
from workbench.models.taps import edit_taps, gathering
from workbench.prompts import Prompts

__all__ = ["Located", "NnsightModel"]

Located = list[tuple[Attachable, Tap]]
"""Taps and where they hang."""


class NnsightModel(Engine):
    """A hooked model on nnsight: reads, edits, restarts and gradients, each as one trace.

    It reads every site but those inside attention's product (q, k, v, pattern), runs causal models
    alone, and has neither single blocks nor keys and values.
    """

    engine = "nnsight"

    def __init__(self, hf: Any, tokenizer: Any, *, name: str, revision: str | None = None) -> None:
        super().__init__(hf, tokenizer, name=name, revision=revision)
        if not self.causal:
            raise UnsupportedError(
                f"the nnsight engine runs causal models alone, and {self.anatomy.config.model_type} is "
                "none: load the model with engine='torch'"
            )
        self._tree = Tree(hf)

    @classmethod
    def of(cls, model: Any, tokenizer: Any, *, name: str, revision: str | None = None) -> Self:
        """From a Hugging Face model, or from an nnsight model that the caller holds.

        Args:
            tokenizer: the nnsight model's own where None.

        Raises:
            ModelError: an nnsight model without weights, with edits of its own, or without a
                tokenizer.
        """
        if not is_nnsight(model):
            return cls(model, tokenizer, name=name, revision=revision)
        tokenizer = getattr(model, "tokenizer", None) if tokenizer is None else tokenizer
        _require_plain(model, tokenizer)
        return cls(model._module, tokenizer, name=name, revision=revision)

    # --- reading and editing ---------------------------------------------------------------

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
        if prefix is not None:
            raise self._cannot("prefix")
        start = self._checked_start(batch, start, None)
        wanted = [self._sites(read.sites, start) for read in reads]
        places = [batch.places(read.positions) for read in reads]
        named = [(site, w) for sites, w in zip(wanted, places, strict=True) for site in sites]
        columns = _columns([where for site, where in named if site.name == "logits"])
        taps = self._edit_taps(batch, edits, start, last=max(site.layer for site, _ in named))
        found: dict[int, Tensor] = {}
        for index, (site, where) in enumerate(named):
            taps.append(self._reading(site, where, columns, found, index))
        with torch.no_grad():
            found = self._run(batch, taps, found, columns, start)
        values = (found[index] for index in range(len(named)))
        return [
            Captures({site: next(values) for site in sites}, where, batch, self.readout)
            for sites, where in zip(wanted, places, strict=True)
        ]

    def _edit_taps(
        self, batch: Batch, edits: Sequence[Edit], start: Start | None, last: int
    ) -> Located:
        """Finite padding, then the edits in their order, but resid_mid behind those it builds on."""
        first = 0 if start is None else start[0]
        taps: Located = [*finite_padding(self.anatomy, batch, None)[first:last]]  # one a block
        for edit in sorted(edits, key=lambda edit: edit.target.name == "resid_mid"):
            self._sites([edit.site], start)
            made = edit_taps(self.anatomy, edit, batch.places(edit.positions))
            taps += made if edit.target.layer <= last else []
        return taps

    def _reading(
        self,
        site: Site,
        where: Places,
        columns: Tensor | None,
        found: dict[int, Tensor],
        index: int,
    ) -> tuple[Attachable, Tap]:
        if columns is not None and site.name == "logits":
            return self._logits_tap(gathering(_among(where, columns), found, index))
        return self.anatomy.point(site), gathering(where, found, index)

    def _run(
        self,
        batch: Batch,
        taps: Located,
        found: dict[int, Tensor],
        columns: Tensor | None,
        start: Start | None = None,
    ) -> dict[int, Tensor]:
        """One trace, in which the taps fill `found`."""
        given = inputs(self.anatomy, batch, None)
        given |= {} if columns is None else {"logits_to_keep": columns}
        with self.lock:
            self._require_eval()
            if self._tree.running:
                raise SettingError("a pass inside an edit of another: make it before, and keep it")
            walked = steps(self._tree, self.anatomy, batch, taps, start)
            with self._tree.attached():
                return traced(self._tree, given, walked, found, self._backend())

    def _require_eval(self) -> None:
        require_eval(self.hf)

    def _backend(self) -> Any:
        """Where a trace runs, as nnsight has it; None for here."""
        return None

    def _logits_tap(self, tap: Tap) -> tuple[Attachable, Tap]:
        """`tap` on the logits that the model returns."""

        def on_output(output: Any) -> None:
            tap(output.logits)

        return Point(self.hf, "output"), on_output

    @override
    def _require(self, site: Site, start: Start | None) -> None:
        if site.name in PRODUCT_SITES:
            raise self._cannot(f"site {site.name}")
        super()._require(site, start)

    # --- gradients and the last step ---------------------------------------------------------

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
        where, ends = batch.places(positions), batch.places(at)
        columns = torch.unique(ends.column)
        kept: dict[int, Tensor] = {}
        found: dict[int, Tensor] = {}

        def descend(logits: Tensor) -> None:
            value = scalar(_among(ends, columns).gather(logits), ends)
            found.update({i: where.gather(slope) for i, slope in enumerate(slopes(value, kept))})

        taps: Located = [
            (self.anatomy.gradient_point(site), keep(kept, i)) for i, site in enumerate(wanted)
        ]
        taps.append(self._logits_tap(descend))
        with self.lock, frozen(self.hf):
            found = self._run(batch, taps, found, columns, start)
        values = {site: found[index] for index, site in enumerate(wanted)}
        return Captures(values, where, batch, self.readout)

    @override
    def embedded(self, batch: Batch | Prompts, shift: Tensor | None = None) -> Tensor:
        with self.lock, self._tree.resting(), torch.no_grad():
            return embedded(self.hf, self.anatomy, self._batch(batch), shift)

    @override
    def readout(self, resid: Tensor) -> Tensor:
        guard = frozen(self.hf) if resid.requires_grad else torch.no_grad()
        with self.lock, self._tree.resting(), guard:
            return readout(self.hf, self.anatomy, resid)


def _columns(places: Sequence[Places]) -> Tensor | None:
    """The columns of all `places`, ascending; None without any."""
    return torch.unique(torch.cat([where.column for where in places])) if places else None


def _among(where: Places, columns: Tensor) -> Places:
    """`where` in a tensor that has `columns` alone."""
    return replace(where, column=torch.searchsorted(columns, where.column))


def _require_plain(model: Any, tokenizer: Any) -> None:
    """Refuse an nnsight model that does not run the way it looks."""
    if not hasattr(model, "get_input_embeddings"):
        raise ModelError(
            f"the nnsight model holds a {type(model._module).__name__}: expected a Hugging Face model"
        )
    if not getattr(model, "dispatched", True):
        raise ModelError("the nnsight model has no weights yet: call model.dispatch() before load")
    if model._edits:
        raise ModelError(
            "the nnsight model has edits of its own: call model.clear_edits() before load"
        )
    if tokenizer is None:
        raise ModelError("the nnsight model has no tokenizer: load(model, tokenizer)")
