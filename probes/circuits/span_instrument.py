"""Causal tracing of long prompts: spans of tokens first, then the tokens of those that matter."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from probes.bibliography import MENG
from probes.causal.effects import algorithm_of
from probes.causal.metrics import UNITS
from probes.circuits.exact import mean_and_error
from probes.circuits.settings import Corrupting
from probes.circuits.spans import Found, coarse_to_fine, grid_block_tokens
from probes.settings import sites_of, whole_number
from workbench.errors import SettingError
from workbench.instrument import Citation, Measured, Named
from workbench.models.batch import Batch, Places
from workbench.models.protocol import Model
from workbench.models.sites import Site, site_layers
from workbench.models.tokens import EncodedPrompt

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import polars as pl
    import xarray as xr

    from workbench.report.sections import Section

__all__ = ["SpanTrace"]

SITES = ("resid_post", "mlp_out", "attn_out")
CELL = ("site", "layer", "place")
HIDDEN = (
    "Spans of small effect were not looked into: tokens inside them that cancel, or of which one is enough, "
    "are not found"
)


@dataclass(frozen=True)
class SpanTrace(Corrupting):
    """Exact effects of spans of tokens, split where they are large: causal tracing of long prompts.

    At each site and layer the tokens from the first corrupted one on are cut into `spans` spans. Each is
    patched whole, exactly; where the effect is at least `share` of the total effect its halves are
    patched, and so on to single tokens. Tokens that were measured only as part of a span have no effect
    of their own: the span's stands beside them, with its ends.

    A span's effect is not the sum of its tokens': tokens that cancel, or of which one is enough, hide in
    spans of small effect. Measured against the whole grid on the same prompt (`causal_trace`), `share=0`
    is that grid.

    Source: activation patching as in Meng et al. 2022, arXiv 2202.05262; first coarse, then fine, as
    Kramar et al. 2024, arXiv 2403.00745, search for nodes.

    Attributes:
        metric: probability, logprob, logit_difference or kl; auto: logit_difference where every prompt
            has a foil, else logprob.
        direction: denoising or noising.
        corruption: noise (on the subject's token embeddings), replace (by each prompt's corrupted text), or
            auto: replace where every prompt has one, else noise.
        noise: standard deviations of the noise, in units of noise_std.
        noise_std: None for the standard deviation of the subjects' embeddings over all prompts.
        samples: how many draws of noise.
        seed: of the draws.
        sites: some of resid_post, mlp_out and attn_out.
        spans: how many to begin with.
        share: of the total effect (of .001 in probability or KL and .01 else, where that is less), from
            which on a span is split.

    Result axes: site, layer, place. Variables: effect and stderr (site, layer, place) of tokens measured by
    themselves, NaN of others; span_effect and span_stderr, of the smallest span that holds the token;
    span_first and span_last, the positions of its ends; clean and corrupted (place); block_tokens, what the
    prompt took, and grid_block_tokens, what all tokens one by one would take (place). Effects before the
    first corrupted token are 0 and take no run. NaN and -1 at layers that a site lacks.

    >>> SpanTrace(spans=8, share=0.1)(model, long_prompts).plot()  # doctest: +SKIP
    """

    sites: Sequence[str] = ("resid_post",)
    spans: int = 8
    share: float = 0.1

    name: ClassVar[str] = "span_trace"
    title: ClassVar[str] = "Span trace"
    long_targets: ClassVar[bool] = True
    costly: ClassVar[bool] = True
    most_prompts: ClassVar[int | None] = 1
    citation: ClassVar[Citation] = Citation(
        "Spans of tokens of prompts of {model} were patched and split where their effect was large, as in "
        "causal tracing (Meng et al., 2022; {settings})",
        MENG,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "sites", sites_of(self.name, self.sites, SITES))
        whole_number(self.name, "spans", self.spans, 1)
        if not isinstance(self.share, int | float) or not self.share >= 0:
            raise SettingError(
                f"{self.name}: share is {self.share!r}: expected a number, 0 or more"
            )

    def prepare(self, model: Model) -> None:
        """Refuse a model whose tokens see later ones, or that has two stacks."""
        algorithm_of(model, [])

    def remarks(self, model: Model) -> Sequence[str]:
        """What spans hide."""
        return [HIDDEN]

    def coords(self, model: Model) -> Mapping[str, Sequence[Any]]:
        """Sites and layers 0..L."""
        return {"site": list(self.sites), "layer": list(range(model.n_layers + 1))}

    def drive_paced(
        self, model: Model, batch: Batch, pace: Callable[[float], None]
    ) -> tuple[Places, Measured]:
        """Prompt by prompt; each says how many of its tokens are done with."""
        found = []
        for number, prompt in enumerate(batch.prompts):

            def part(done: float, number: int = number) -> None:
                pace((number + done) / len(batch))

            found.append(self._of_prompt(model, prompt, part))
        return batch.places("all"), {
            name: Named(
                CELL if found[0][name].dim() == 3 else ("place",),
                torch.cat([one[name] for one in found], -1),
                self._unit(name),
            )
            for name in found[0]
        }

    def _unit(self, name: str) -> str:
        if "block_tokens" in name:
            return "block-token"
        return "position" if name in ("span_first", "span_last") else UNITS[self._scored]

    def _of_prompt(
        self, model: Model, prompt: EncodedPrompt, pace: Callable[[float], None]
    ) -> dict[str, Tensor]:
        contrast, end = self.contrast(model, prompt), len(prompt)
        sites = [Site(n, layer) for n in self.sites for layer in site_layers(n, model.n_layers)]
        found = coarse_to_fine(
            model,
            contrast,
            sites,
            metric=self._scored,
            direction=self.direction,
            end=end,
            spans=self.spans,
            share=self.share,
            pace=pace,
        )
        grid = grid_block_tokens(model, contrast, sites, end)
        return self._spread(found, sites, model.n_layers, min(contrast.same, end - 1), end) | {
            "clean": found.clean.cpu().expand(end),
            "corrupted": found.corrupted.mean().cpu().expand(end),
            "block_tokens": torch.full((end,), found.block_tokens),
            "grid_block_tokens": torch.full((end,), grid),
        }

    def _spread(
        self, found: Found, sites: Sequence[Site], n_layers: int, first: int, end: int
    ) -> dict[str, Tensor]:
        """What is known of each token, [site, layer, position]."""
        shape = (len(self.sites), n_layers + 1, end)
        empty = torch.full(shape, torch.nan, dtype=found.clean.dtype)
        names = ("effect", "stderr", "span_effect", "span_stderr")
        numbers = {name: empty.clone() for name in names}
        ends = {name: torch.full(shape, -1) for name in ("span_first", "span_last")}
        for site in sites:  # before the corruption nothing differs
            where = (self.sites.index(site.name), site.layer, slice(0, first))
            for name in ("effect", "span_effect"):
                numbers[name][where] = 0.0
            for values in ends.values():
                values[where] = torch.arange(first)
        for span in found.finest:
            where = (self.sites.index(span.site.name), span.site.layer, slice(span.first, span.end))
            mean, error = mean_and_error(found.effects[span].cpu(), 0)
            numbers["span_effect"][where], numbers["span_stderr"][where] = mean, error
            ends["span_first"][where], ends["span_last"][where] = span.first, span.end - 1
            if span.end - span.first == 1:
                numbers["effect"][where], numbers["stderr"][where] = mean, error
        return numbers | ends

    @classmethod
    def rows(cls, data: xr.Dataset) -> Iterator[dict[str, Any]]:
        """One row a span that was not split, single tokens among them."""
        from probes.circuits.span_rows import rows

        return rows(data)

    @classmethod
    def figure(
        cls,
        data: xr.Dataset,
        *,
        theme: str = "light",
        prompt: str | int | None = None,
        selected: tuple[int, int] | None = None,
        **options: Any,
    ) -> go.Figure:
        """Effects by layer and token; a span that was not split is one outlined cell."""
        from probes.circuits.span_figures import figure

        return figure(data, theme=theme, prompt=prompt, selected=selected, **options)

    @classmethod
    def section(cls, rows: pl.LazyFrame, data: xr.Dataset | None = None) -> Section:
        """The share of the whole grid's work, and the largest effect of a single token by layer."""
        from probes.circuits.span_report import section

        return section(rows)
