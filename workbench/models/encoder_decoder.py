"""Models of two stacks: the encoder reads the prompt, the decoder begins its answer.

A site's plain name speaks of the decoder, which gets its start token alone, so that position 0 is
where the first token of the answer is predicted. Names with "encoder." before them speak of the
encoder, whose positions are the prompt's. One read reads one stack, and restarts in it; edits may
be in both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from workbench.errors import ModelError, SettingError, UnsupportedError
from workbench.models.anatomy import Anatomy
from workbench.models.attention import tapped, within_prompts
from workbench.models.batch import Batch, DecoderBatch
from workbench.models.captures import Captures, Read
from workbench.models.edits import Edit
from workbench.models.engine import Engine
from workbench.models.families import T5_ENCODER
from workbench.models.forward import Start
from workbench.models.gradients import Scalar, gradients
from workbench.models.hooks import Attachable, Tap
from workbench.models.keys_values import KeyValues
from workbench.models.positions import Positions
from workbench.models.sites import Site, SiteRequest
from workbench.models.torch_engine import TorchModel
from workbench.prompts import Prompts

__all__ = ["EncoderDecoderModel", "EncoderStack"]

PREFIX = "encoder."

Requests = str | Sequence[SiteRequest]


class EncoderStack(TorchModel):
    """The encoder of a model of two stacks, as a model without a head."""

    def __init__(self, whole: EncoderDecoderModel) -> None:
        encoder = whole.hf.encoder
        super().__init__(
            encoder,
            whole.tokenizer,
            name=f"{whole.name}, encoder",
            revision=whole.revision,
            anatomy=Anatomy(encoder, T5_ENCODER),
        )
        self.adapter, self.lock = whole.adapter, whole.lock
        self.refused = {
            name.removeprefix(PREFIX): reason
            for name, reason in whole.refused.items()
            if name.startswith(PREFIX)
        }

    def edit_taps(self, batch: Batch, edits: Sequence[Edit]) -> list[tuple[Attachable, Tap]]:
        """The taps of edits in a pass that runs the whole encoder."""
        return self._edit_taps(batch, edits, None, None, self.n_layers)

    @override
    def readout(self, resid: Tensor) -> Tensor:
        raise UnsupportedError(
            f"{self.name} has no unembedding: its states cannot be read as logits; read the decoder's"
        )


class EncoderDecoderModel(TorchModel):
    """A hooked model whose decoder attends to an encoder."""

    kinds = ("encoder_decoder",)

    @property
    def encoder(self) -> EncoderStack:
        """The encoder by itself, with every operation of a model but those of the logits."""
        return EncoderStack(self)

    @property
    @override
    def stacks(self) -> Mapping[str, Engine]:
        return {"": self, PREFIX: self.encoder}

    @override
    def _batch(self, batch: Batch | Prompts) -> DecoderBatch:
        found = super()._batch(batch)
        return found if isinstance(found, DecoderBatch) else DecoderBatch.of(found, self._start_id)

    @property
    def _start_id(self) -> int:
        found = self.anatomy.config.decoder_start_token_id
        if found is None:
            raise ModelError(
                f"{self.name} says no token for its decoder to begin with: set its "
                "config.decoder_start_token_id"
            )
        return int(found)

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
        if _of_encoder([site for read in reads for site in _listed(read.sites)]):
            return self._read_encoder(_source(batch), reads, edits, start, prefix)
        whole = self._batch(batch).padded_right()
        own = [edit for edit in edits if not _in_encoder(edit.site)]
        others = [_plain_edit(edit) for edit in edits if _in_encoder(edit.site)]
        taps = self.encoder.edit_taps(whole.source, others)
        with self.lock, torch.no_grad(), tapped(self.hf, whole.source, taps):
            return super().read(whole, reads, edits=own, start=start, prefix=prefix)

    def _read_encoder(
        self,
        batch: Batch,
        reads: Sequence[Read],
        edits: Sequence[Edit],
        start: Start | None,
        prefix: KeyValues | None,
    ) -> list[Captures]:
        for edit in edits:
            if not _in_encoder(edit.site):
                raise SettingError(f"an edit of {edit.target} cannot be seen in the encoder")
        plain = [Read(_plain(read.sites), read.positions) for read in reads]
        own = [_plain_edit(edit) for edit in edits]
        found = self.encoder.read(batch, plain, edits=own, start=start, prefix=prefix)
        return [_prefixed(captures) for captures in found]

    @override
    def grad(
        self,
        batch: Batch | Prompts,
        scalar: Scalar,
        sites: Requests,
        positions: Positions = "all",
        at: Positions = "last",
        start: Start | None = None,
    ) -> Captures:
        whole = self._batch(batch).padded_right()
        if not _of_encoder(sites):
            found = super().grad(whole, scalar, sites, positions, at, start)
            return _within_prompts(found, "cross_pattern", whole.source)
        if start is not None:
            raise SettingError("a gradient in the encoder starts with the prompt: give no start")
        encoder = self.encoder
        wanted = encoder._sites(_plain(sites))
        points = [encoder.anatomy.gradient_point(site) for site in wanted]
        with self.lock:
            grads = gradients(self.hf, self.anatomy, whole, scalar, points, at)
        where = whole.source.places(positions)
        values = {site: where.gather(g) for site, g in zip(wanted, grads, strict=True)}
        found = Captures(values, where, whole.source, encoder.readout)
        return _prefixed(_within_prompts(found, "pattern", whole.source))


def _source(batch: Batch) -> Batch:
    return batch.source if isinstance(batch, DecoderBatch) else batch


def _in_encoder(request: Any) -> bool:
    name = request if isinstance(request, str) else request[0]
    return isinstance(name, str) and name.startswith(PREFIX)


def _of_encoder(sites: Requests) -> bool:
    """Whether sites are the encoder's.

    Raises:
        SettingError: some are and some are not.
    """
    found = {_in_encoder(request) for request in _listed(sites)}
    if len(found) > 1:
        raise SettingError(
            "sites of the encoder and of the decoder in one read, whose positions differ: read each "
            "by itself"
        )
    return found == {True}


def _plain(sites: Requests) -> list[SiteRequest]:
    """The requests without their prefix."""
    return [_plain_request(request) for request in _listed(sites)]


def _listed(sites: Requests) -> Sequence[SiteRequest]:
    return (sites,) if isinstance(sites, str) else sites


def _plain_request(request: SiteRequest) -> SiteRequest:
    if isinstance(request, str):
        return request.removeprefix(PREFIX)
    return request[0].removeprefix(PREFIX), request[1]


def _plain_edit(edit: Edit) -> Edit:
    return replace(edit, site=_plain_request(edit.site))


def _within_prompts(captures: Captures, name: str, keys: Batch) -> Captures:
    """Captures whose patterns `name` are 0 beyond the ends of the prompts that `keys` holds."""
    values = {
        site: within_prompts(value, keys, captures.places) if site.name == name else value
        for site, value in captures.values.items()
    }
    return replace(captures, values=values)


def _prefixed(captures: Captures) -> Captures:
    values = {Site(PREFIX + name, layer): v for (name, layer), v in captures.values.items()}
    return replace(captures, values=values)
