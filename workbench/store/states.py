"""The states of one shard in a safetensors file, and reading them by slices.

A file holds one tensor [N, d] a site, named "site.layer"; `prompt`, `position` and `token` [N],
the number of the prompt in the store, the position in it and the id of the token there; and
`offset` [prompts + 1], the row at which each prompt begins.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from workbench.errors import ResultError
from workbench.models.positions import resolve_positions
from workbench.models.sites import Site
from workbench.models.tokens import EncodedPrompt
from workbench.store.description import Description
from workbench.store.seals import require_sealed
from workbench.store.shards import Shards

__all__ = ["States", "tensor_name", "write_states"]

FILE = "activations.safetensors"
Rows = tuple[int, Sequence[int]]
"""Number of a prompt in the store, and ascending rows among those that are stored of it."""


def tensor_name(site: Site) -> str:
    """How a file calls the tensor of `site`.

    >>> tensor_name(Site("resid_post", 3))
    'resid_post.3'
    """
    return f"{site.name}.{site.layer}"


def write_states(
    folder: Path, numbers: range, places: Tensor, values: Mapping[Site, Tensor]
) -> None:
    """Write the states of the prompts `numbers`.

    Args:
        places: [3, N] prompt (counted from the shard's first), position and token of each row, in
            the order of the prompts.
        values: [N, d] of each site.
    """
    prompt, position, token = places
    counts = torch.bincount(prompt, minlength=len(numbers))
    index = {
        "prompt": prompt + numbers.start,
        "position": position.clone(),
        "token": token.clone(),
        "offset": torch.cat([counts.new_zeros(1), counts.cumsum(0)]),
    }
    save_file({tensor_name(site): value for site, value in values.items()} | index, folder / FILE)


class States:
    """The states in the shards of a store; a read takes what it needs into memory and no more.

    A shard is held against its seal and the prompts when it is first read.
    """

    def __init__(
        self, shards: Shards, description: Description, prompts: Sequence[EncodedPrompt]
    ) -> None:
        self._shards = shards
        self._description = description
        self._prompts = prompts
        self._checked: set[str] = set()

    def gather(self, wanted: Iterable[Rows], sites: Sequence[Site]) -> dict[Site, Tensor]:
        """[N, d] of each site, prompt by prompt.

        Raises:
            ResultError: a shard is missing, was changed or cannot be read.
        """
        pieces: dict[Site, list[Tensor]] = {site: [] for site in sites}
        with ExitStack() as stack:
            opened: dict[str, _File] = {}
            for number, rows in wanted:
                key = self._description.key(number)
                if key not in opened:
                    opened[key] = stack.enter_context(self._file(key))
                first = number - self._description.numbers(key).start
                for site, parts in pieces.items():
                    parts.append(opened[key].rows(tensor_name(site), first, rows))
        return {site: torch.cat(parts) for site, parts in pieces.items()}

    def _file(self, key: str) -> _File:
        folder = self._shards.folder(key)
        if key not in self._checked:
            require_sealed(folder, self._description.fingerprint)
            with _File(folder / FILE) as file:
                file.require_places(self._places(key))
            self._checked.add(key)
        return _File(folder / FILE)

    def _places(self, key: str) -> list[tuple[int, int]]:
        """Prompt and position of each row that the shard should have."""
        return [
            (number, position)
            for number in self._description.numbers(key)
            for position in resolve_positions(self._description.positions, self._prompts[number])
        ]


class _File(ExitStack):
    """One shard's file while it is open."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._slices: dict[str, Any] = {}

    def __enter__(self) -> _File:
        try:
            self._file = self.enter_context(safe_open(self.path, framework="pt"))
            self._offset = self._file.get_tensor("offset")
        except (OSError, SafetensorError) as error:
            raise self._broken(error) from None
        return self

    def require_places(self, expected: Sequence[tuple[int, int]]) -> None:
        """Refuse a file whose rows are not of these prompts and positions."""
        try:
            columns = [self._file.get_tensor(name).tolist() for name in ("prompt", "position")]
        except SafetensorError as error:
            raise self._broken(error) from None
        if list(zip(*columns, strict=False)) != expected:
            raise self._broken(ValueError("its rows are of other prompts or positions"))

    def rows(self, name: str, prompt: int, rows: Sequence[int]) -> Tensor:
        """[len(rows), d]: those of one prompt."""
        try:
            if name not in self._slices:
                self._slices[name] = self._file.get_slice(name)
            begin = int(self._offset[prompt])
            span: Tensor = self._slices[name][begin + rows[0] : begin + rows[-1] + 1]
            return span[[row - rows[0] for row in rows]]
        except (IndexError, SafetensorError) as error:
            raise self._broken(error) from None

    def _broken(self, error: Exception) -> ResultError:
        reason = str(error).splitlines()[0]
        return ResultError(
            f"{self.path} cannot be read: {reason}; remove its folder and capture again"
        )
