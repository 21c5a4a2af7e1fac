"""What a model accepts: prompts as batches, sites that it has, states to restart from."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.errors import ModelError, PromptError, SettingError
from workbench.models.batch import Batch, Padding
from workbench.models.forward import Start
from workbench.models.keys_values import KeyValues
from workbench.models.loaded import Loaded
from workbench.models.sites import Site, SiteRequest, expand_sites
from workbench.models.tokens import EncodedPrompt
from workbench.prompts import Prompt, Prompts, PromptSet

__all__ = ["Accepting", "listed"]


class Accepting(Loaded):
    """A loaded model that turns what it is asked for into what a pass takes, or refuses it by name."""

    def encode(self, prompt: Prompt, *, long_targets: bool = False) -> EncodedPrompt:
        """Encode one prompt, refusing what does not fit (see `Tokens.encode`)."""
        return self.tokens.encode(prompt, self.context, long_targets=long_targets)

    def batch(
        self, prompts: Prompts | Sequence[EncodedPrompt], padding: Padding = "right"
    ) -> Batch:
        """One padded batch of prompts on the model's device."""
        encoded = [p if isinstance(p, EncodedPrompt) else self.encode(p) for p in listed(prompts)]
        return Batch.collate(
            encoded, pad_id=self.tokens.pad_id, padding=padding, device=self.device
        )

    def as_run(self, batch: Batch) -> Batch:
        """The batch whose positions its sites have: of a model of two stacks, the decoder's."""
        return self._batch(batch)

    def _batch(self, batch: Batch | Prompts) -> Batch:
        return batch if isinstance(batch, Batch) else self.batch(batch)

    def _checked_start(
        self, batch: Batch, start: Start | None, prefix: KeyValues | None
    ) -> Start | None:
        """Refuse a restart from no layer, or from states of another shape; the dtype is cast."""
        if start is None:
            return None
        layer, states = start
        if not 0 <= layer <= self.n_layers:
            raise SettingError(f"no layer {layer} to restart from: expected 0..{self.n_layers}")
        rows, width = batch.ids.shape
        expected = (rows, width - (0 if prefix is None else prefix.width), self.d_model)
        if tuple(states.shape) != expected:
            raise SettingError(
                f"states of shape {tuple(states.shape)} to restart from: expected {expected}, "
                "padded as the batch is"
            )
        return layer, states.to(device=self.device, dtype=self.dtype)

    def _sites(
        self, requests: str | Sequence[SiteRequest], start: Start | None = None
    ) -> tuple[Site, ...]:
        sites = expand_sites(requests, self.n_layers)
        if not sites:
            raise SettingError("no sites: expected at least one")
        for site in sites:
            self._require(site, start)
        return sites

    def _sites_inside(
        self, requests: str | Sequence[SiteRequest], start: Start | None = None
    ) -> tuple[Site, ...]:
        """The sites to differentiate at; what the model returns is none."""
        sites = self._sites(requests, start)
        if any(site.name == "logits" for site in sites):
            raise SettingError("logits: expected a site inside the network to differentiate at")
        return sites

    def _require(self, site: Site, start: Start | None) -> None:
        """Refuse a site that it lacks, that failed its check, or that a restart passes over."""
        self.anatomy.require(site.name)
        if site.name in self.refused:
            raise ModelError(f"{self.name}: {site.name} is refused: {self.refused[site.name]}")
        lowest = 0 if start is None else start[0] + (site.name != "resid_post")
        if site.layer < lowest and site.name not in ("final_norm", "logits"):
            raise SettingError(f"{site} lies below the restart at layer {lowest}: it is not run")


def listed(prompts: Prompts | Sequence[EncodedPrompt]) -> Sequence[Prompt | EncodedPrompt]:
    """Prompts, checked as a set, or encoded ones as they are."""
    if isinstance(prompts, str | Prompt | PromptSet):
        return PromptSet.of(prompts)
    items = list(prompts)
    encoded = [item for item in items if isinstance(item, EncodedPrompt)]
    plain = [item for item in items if not isinstance(item, EncodedPrompt)]
    if encoded and plain:
        raise PromptError("prompts and encoded prompts in one batch: expected one kind")
    return encoded or PromptSet.of(plain)
