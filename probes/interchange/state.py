"""What an interchange keeps of each prompt until all have been seen: numbers alone, which merge."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from workbench.models.batch import Places
from workbench.models.tokens import EncodedPrompt
from workbench.prompts import Prompt

__all__ = ["absent_kind", "empty", "encoded", "group_of", "key_of", "kind_of", "merged", "seen"]

NUMBERS = ("key", "length", "at", "target", "group", "kind")


def key_of(value: object) -> int:
    """63 bits of the SHA-256 of what a value is written as."""
    digest = hashlib.sha256(repr(value).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def group_of(prompt: EncodedPrompt) -> str:
    """The group; where it has none the subject, and where it has none the text itself."""
    own = prompt.prompt
    return own.group or prompt.subject_text or own.shown


def kind_of(prompt: Prompt, within: str) -> str:
    """The value of the field that base and source share, as text."""
    return repr(prompt.extra.get(within))


def absent_kind() -> int:
    """What `seen` gives as kind of a prompt without the field."""
    return key_of(repr(None))


def empty() -> dict[str, Tensor]:
    """Nothing seen."""
    none = torch.empty(0, dtype=torch.int64)
    return {"ids": none.view(0, 0), **{name: none.clone() for name in NUMBERS}}


def seen(prompts: Sequence[EncodedPrompt], places: Places, within: str) -> dict[str, Tensor]:
    """The prompts of one batch, each with its one place.

    `ids` [N, width], -1 beyond a prompt's end; `at` its position; `target`; and hashes: `key` of its
    tokens and target, `group`, and `kind` of the field `within`.
    """
    width = max(map(len, prompts))
    rows = [[*p.ids, *[-1] * (width - len(p))] for p in prompts]
    position = dict(zip(places.row.tolist(), places.position.tolist(), strict=True))
    numbers = [
        (
            key_of((p.ids, p.target)),
            len(p),
            position[row],
            -1 if p.target is None else p.target,
            key_of(group_of(p)),
            key_of(kind_of(p.prompt, within)),
        )
        for row, p in enumerate(prompts)
    ]
    columns = dict(zip(NUMBERS, torch.tensor(numbers).T, strict=True))
    return {"ids": torch.tensor(rows), **columns}


def merged(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Both together, in the order of their keys, so that any split gives the same."""
    width = max(left["ids"].shape[1], right["ids"].shape[1])
    both = {
        name: torch.cat([_widened(one[name], width) for one in (left, right)])
        for name in ("ids", *NUMBERS)
    }
    order = both["key"].argsort(stable=True)
    return {name: values[order] for name, values in both.items()}


def _widened(values: Tensor, width: int) -> Tensor:
    return values if values.dim() == 1 else pad(values, (0, width - values.shape[1]), value=-1)


def encoded(state: Mapping[str, Tensor], rows: Tensor) -> list[EncodedPrompt]:
    """Prompts to be run, of the tokens and nothing else."""
    return [
        EncodedPrompt(Prompt("-"), tuple(ids[:length]), ((0, 0),) * length, target, None)
        for ids, length, target in zip(
            state["ids"][rows].tolist(),
            state["length"][rows].tolist(),
            state["target"][rows].tolist(),
            strict=True,
        )
    ]
