"""A store of activations: what instruments read, without the model that it was captured from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from threading import RLock
from typing import Any

import torch
from torch import Tensor

from workbench.errors import PromptError, ResultError, UnsupportedError
from workbench.instrument import Driving, Instrument, Reading, SetLevel
from workbench.models.accepting import listed
from workbench.models.batch import Batch, Padding
from workbench.models.captures import Captures, Read
from workbench.models.families import FAMILIES
from workbench.models.positions import Positions, resolve_positions
from workbench.models.pretrained import chosen_device
from workbench.models.sites import Site, SiteRequest, expand_sites
from workbench.models.tokens import EncodedPrompt, Tokens
from workbench.models.torch_engine import TorchModel
from workbench.prompts import Prompt, Prompts, PromptSet
from workbench.store.description import Description
from workbench.store.last_step import last_step, stored_tokenizer
from workbench.store.prompt_lines import StoredPrompt, read_lines
from workbench.store.refusals import NoBlocks
from workbench.store.seals import require_sealed
from workbench.store.shards import Shards
from workbench.store.states import States

__all__ = ["MODEL", "PROMPTS", "SHARDS", "Store"]

MODEL = "model"
PROMPTS = "prompts"
SHARDS = "shards"


class Store(NoBlocks):
    """Captured activations, to be measured in the place of their model.

    Reading and set-level instruments get what a live pass would give them, and the model's own last
    step. Prompts are those that were captured; in a batch a store reads what that batch needs.

    Attributes:
        folder: where it lies.
        name: of the captured model.
        tokens: the captured model's tokenizer under the workbench's special-token policy.
        prompts: the captured prompts.
        sites: what was captured.
        positions: where in each prompt.
        dtype: of the captured model.
        device: where tensors are given and the last step is run.
        token_limit: the most tokens a batch may hold, where memory has set one.
        lock: held by a pass.

    >>> store = Store.open("acts/")  # doctest: +SKIP
    """

    engine = "store"

    def __init__(self, folder: Path, device: torch.device) -> None:
        """Open `folder`; see `open`."""
        self.folder = folder
        self.device = device
        self._description = Description.read(folder)
        self._require_finished()
        require_sealed(folder / MODEL, self._description.fingerprint)
        self.name = str(self._description.model["name"])
        self.sites = self._description.sites
        self.positions = self._description.positions
        self.tokens = Tokens(stored_tokenizer(folder / MODEL), self._description.vocab_size)
        self._require_tokenizer()
        self.prompts, self._encoded = read_lines(
            folder / PROMPTS, self._description.prompts, self.tokens.mask_id
        )
        self.token_limit: int | None = None
        self.lock = RLock()
        self._states = States(Shards(folder / SHARDS), self._description, self._encoded)

    @classmethod
    def open(cls, folder: str | Path, *, device: torch.device | str | None = None) -> Store:
        """Open a store that `capture` made.

        Args:
            device: where tensors are given and the last step is run; CUDA where present and CPU
                otherwise, where None.

        Raises:
            ResultError: it is no store, is unfinished, was changed, or cannot be read.
            ModelError: the device cannot be used.
        """
        return cls(Path(folder), chosen_device(device))

    def _require_finished(self) -> None:
        finished = {*Shards(self.folder).keys()}
        if lacking := {MODEL, PROMPTS} - finished:
            raise ResultError(
                f"{self.folder} lacks {min(lacking)!r}: call capture again to finish it"
            )
        keys = self._description.keys
        done = set(Shards(self.folder / SHARDS).keys())
        if lacking := set(keys) - done:
            raise ResultError(
                f"{self.folder} lacks {len(lacking)} of {len(keys)} shards ({min(lacking)}): call capture "
                "again to finish it"
            )

    def _require_tokenizer(self) -> None:
        if self.tokens.fingerprint != self._description.model["tokenizer"]:
            raise ResultError(
                f"{self.folder / MODEL}: its tokenizer is read otherwise than the captured model's was: use "
                "the version of transformers that it was captured with, or capture again"
            )

    def __len__(self) -> int:
        return len(self.prompts)

    def __repr__(self) -> str:
        return (
            f"<store of {self.name}: {len(self)} prompts, positions {self.positions!r}, "
            f"{_spelled(self.sites)}>"
        )

    # --- what a model says of itself -------------------------------------------------------

    @property
    def n_layers(self) -> int:
        """L, the number of blocks of the captured model."""
        return int(self._description.model["n_layers"])

    @property
    def causal(self) -> bool:
        """Whether a token of the captured model sees only those before it."""
        return FAMILIES[self._description.model["family"]].kind != "encoder"

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self._description.d_model

    @property
    def vocab_size(self) -> int:
        """Rows of the captured model's embedding."""
        return self._description.vocab_size

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the captured model."""
        return self._description.dtype

    @property
    def tokenizer(self) -> Any:
        """The Hugging Face tokenizer."""
        return self.tokens.tokenizer

    def provenance(self) -> dict[str, Any]:
        """What the captured model said of itself, and that a store was read."""
        return {**self._description.model, "read_from": "a store of activations"}

    # --- prompts ---------------------------------------------------------------------------

    @cached_property
    def _numbers(self) -> dict[str, list[int]]:
        """The numbers of the prompts of each text or transcript."""
        found: dict[str, list[int]] = defaultdict(list)
        for number, prompt in enumerate(self.prompts):
            found[prompt.shown].append(number)
        return dict(found)

    def encode(self, prompt: Prompt, *, long_targets: bool = False) -> StoredPrompt:
        """The captured prompt that equals `prompt` in all but its id; of several, the one itself.

        Its target is the one token that was captured with it, whatever `long_targets` says.

        Raises:
            PromptError: none does.
        """
        equal = [
            number
            for number in self._numbers.get(prompt.shown, ())
            if _without_id(self.prompts[number]) == _without_id(prompt)
        ]
        if not equal:
            raise PromptError(
                f"prompt {prompt.shown[:40]!r} was not captured as it stands: expected one of the store's "
                f"{len(self)} prompts; measure it on the model"
            )
        return self._encoded[min(equal, key=lambda n: self.prompts[n] is not prompt)]

    def batch(
        self, prompts: Prompts | Sequence[EncodedPrompt], padding: Padding = "right"
    ) -> Batch:
        """One padded batch of captured prompts."""
        encoded = [p if isinstance(p, EncodedPrompt) else self.encode(p) for p in listed(prompts)]
        return Batch.collate(
            encoded, pad_id=self.tokens.pad_id, padding=padding, device=self.device
        )

    def as_run(self, batch: Batch) -> Batch:
        """The batch whose positions its sites have: the one given."""
        return batch

    # --- reading ---------------------------------------------------------------------------

    def require(self, instruments: Iterable[Instrument], prompts: PromptSet) -> None:
        """Refuse, before any work, what the store does not suffice for.

        Raises:
            UnsupportedError: an instrument that runs the model itself, or reads its weights.
            ResultError: a site, layer or position that was not stored.
            PromptError: a prompt that was not captured.
        """
        encoded = [self.encode(prompt) for prompt in prompts]
        for instrument in instruments:
            if isinstance(instrument, Driving):
                raise UnsupportedError(
                    f"{instrument.name} runs the model itself: stored activations do not suffice; "
                    "measure it on the model"
                )
            if instrument.needs_weights:
                raise UnsupportedError(
                    f"{instrument.name} reads the model's weights, which stored activations lack: measure "
                    "it on the model"
                )
            if isinstance(instrument, Reading | SetLevel):
                read = instrument.reads(self)
                self._stored_sites(read.sites)
                self._stored_sites(read.everywhere)
                for prompt in encoded:
                    self._rows(prompt, read.positions)
                    if read.everywhere:
                        self._rows(prompt, "all")

    def capture(
        self,
        batch: Batch | Prompts,
        sites: str | Sequence[SiteRequest],
        positions: Positions = "all",
    ) -> Captures:
        """Read stored `sites` at `positions`."""
        batch = batch if isinstance(batch, Batch) else self.batch(batch)
        return self.read(batch, [Read(sites, positions)])[0]

    def read(
        self,
        batch: Batch,
        reads: Sequence[Read],
        *,
        edits: Sequence[Any] = (),
        start: Any = None,
        prefix: Any = None,
    ) -> list[Captures]:
        """Serve several reads from the shards that hold the batch's prompts.

        Raises:
            ResultError: a site, layer or position that was not stored, or a broken file.
            UnsupportedError: `edits`, `start` or `prefix` are given.
        """
        if edits:
            self.intervene()
        if start is not None or prefix is not None:
            self.tail()
        return [self._read(batch, read) for read in reads]

    def _read(self, batch: Batch, read: Read) -> Captures:
        sites = self._stored_sites(read.sites)
        places = batch.places(read.positions)
        wanted = [(self._number(p), self._rows(p, read.positions)) for p in batch.prompts]
        with self.lock:
            values = self._states.gather([rows for rows in wanted if rows[1]], sites)
        on_device = {site: value.to(self.device) for site, value in values.items()}
        return Captures(on_device, places, batch, self.readout)

    def _stored_sites(self, requests: str | Sequence[SiteRequest]) -> tuple[Site, ...]:
        sites = expand_sites(requests, self.n_layers)
        for site in sites:
            if site not in self.sites:
                raise ResultError(f"{site} was not stored: the store holds {_spelled(self.sites)}")
        return sites

    def _number(self, prompt: EncodedPrompt) -> int:
        """Where the states of an encoded prompt lie."""
        return (
            prompt.number if isinstance(prompt, StoredPrompt) else self.encode(prompt.prompt).number
        )

    def _rows(self, prompt: EncodedPrompt, positions: Positions) -> list[int]:
        """Where, among the stored places of `prompt`, `positions` are."""
        stored = {p: row for row, p in enumerate(resolve_positions(self.positions, prompt))}
        wanted = resolve_positions(positions, prompt)
        for position in wanted:
            if position not in stored:
                raise ResultError(
                    f"position {position} of prompt {prompt.text[:40]!r} was not stored: the store "
                    f"holds positions {self.positions!r}"
                )
        return [stored[position] for position in wanted]

    # --- the last step ---------------------------------------------------------------------

    @cached_property
    def _last_step(self) -> TorchModel:
        return last_step(self.folder / MODEL, self.name, self.dtype, self.device)

    def readout(self, resid: Tensor) -> Tensor:
        """[N, d] states after the last block -> [N, vocabulary] logits, as `TorchModel.readout`."""
        return self._last_step.readout(resid)


def _without_id(prompt: Prompt) -> dict[str, Any]:
    return {name: value for name, value in vars(prompt).items() if name != "id"}


def _spelled(sites: Iterable[Site]) -> str:
    """Each site's name with its layers."""
    layers: dict[str, list[int]] = defaultdict(list)
    for site in sites:
        layers[site.name].append(site.layer)
    return ", ".join(f"{name} {sorted(found)}" for name, found in layers.items())
