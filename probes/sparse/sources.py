"""Where units come from: the coordinates of a site, or the latents of an SAE that reads it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from probes.latents.autoencoder import SparseAutoencoder
from probes.sparse.known import Rows
from probes.sparse.labels import Pool
from workbench.errors import ModelError, SettingError
from workbench.models.captures import Captures
from workbench.models.sites import Site
from workbench.models.tokens import EncodedPrompt

__all__ = ["Part", "Source", "checked", "layers", "names", "parts", "pooled"]

ELEMENTS = 2**22  # latents at once


@dataclass(frozen=True)
class Source:
    """Units at one layer.

    Attributes:
        name: what rows and figures call it: the site's name, or "sae:" and the site's name.
        site: what is read.
        sae: whose latents the units are; None where they are the site's own coordinates.
    """

    name: str
    site: Site
    sae: SparseAutoencoder | None = None

    @classmethod
    def of(cls, sae: SparseAutoencoder) -> Source:
        """The latents of an SAE."""
        return cls(f"sae:{sae.site.name}", sae.site, sae)

    def units(self, states: Tensor) -> Tensor:
        """[N, units] of states [N, ...]."""
        return states if self.sae is None else self.sae.encode(states)


@dataclass(frozen=True)
class Part:
    """Some prompts of a batch.

    Attributes:
        prompts: rows are their numbers.
        row, position: [N] where a state stands.
        states: [N, width] of the site, float32 at least.
        units: [N, units] of them.
    """

    prompts: Sequence[EncodedPrompt]
    row: Tensor
    position: Tensor
    states: Tensor
    units: Tensor


def checked(sources: Sequence[Source]) -> list[Source]:
    """The sources, none of which stands for another.

    Raises:
        SettingError: two SAEs read the same site at the same layer.
    """
    seen = dict[tuple[str, int], Source]()
    for one in sources:
        other = seen.setdefault((one.name, one.site.layer), one)
        if other is not one:
            raise SettingError(
                f"sparse_probe: {one.sae} and {other.sae} read {one.site}: expected one SAE a site and "
                "layer"
            )
    return list(sources)


def names(sources: Sequence[Source]) -> list[str]:
    """What the sources are called, in their order."""
    return list(dict.fromkeys(one.name for one in sources))


def layers(sources: Sequence[Source]) -> list[int]:
    """Their layers, ascending."""
    return sorted({one.site.layer for one in sources})


def parts(captures: Captures, source: Source) -> Iterator[Part]:
    """A batch, whole, or prompts of it that have few enough latents at once (one at least).

    Raises:
        ModelError: some of the states are NaN or infinite.
    """
    states = _finite(captures[source.site], source.site).flatten(1)
    row, position = captures.places.row, captures.places.position
    prompts = captures.batch.prompts
    for start, end in _spans(row, len(prompts), source):
        own = (row >= start) & (row < end)
        chosen = states[own]
        units = source.units(chosen)
        yield Part(prompts[start:end], row[own] - start, position[own], chosen, units)


def _spans(row: Tensor, count: int, source: Source) -> Iterator[tuple[int, int]]:
    if source.sae is None:
        yield 0, count
        return
    most = max(1, ELEMENTS // source.sae.config.d_sae)
    start, held = 0, 0
    for number, places in enumerate(torch.bincount(row, minlength=count).tolist()):
        if held and held + places > most:
            yield start, number
            start, held = number, 0
        held += places
    yield start, count


def pooled(part: Part, values: Tensor, rows: Rows, pool: Pool) -> Tensor:
    """[m, ...] values of examples: of their one token, or the mean or greatest over tokens.

    Args:
        values: [N, ...] of the part's places: its units or its states.
    """
    table = part.row.new_full((len(part.prompts), int(part.position.max()) + 1), -1)
    table[part.row, part.position] = torch.arange(len(part.row), device=table.device)
    if all(len(one) == 1 for one in rows.places):
        row, position = torch.tensor([one[0] for one in rows.places], device=table.device).T
        return values[table[row, position]]
    found = []
    for one in rows.places:
        row, position = torch.tensor(one, device=table.device).T
        own = values[table[row, position]]
        found.append(own.mean(0) if pool == "mean" else own.amax(0))
    return torch.stack(found)


def _finite(states: Tensor, site: Site) -> Tensor:
    """The states, float32 at least, since sums of them are taken."""
    if not states.isfinite().all():
        raise ModelError(f"{site}: activations that are not finite; try float32")
    return states.to(torch.promote_types(states.dtype, torch.float32))
