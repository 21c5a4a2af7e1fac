"""Sparse probes of every layer, streamed in two passes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch

from probes.latents.autoencoder import SparseAutoencoder
from probes.settings import one_of
from probes.sparse.citations import LATENTS, PROBES
from probes.sparse.evaluation import Asked, evaluated
from probes.sparse.found import ProbeResult
from probes.sparse.known import Feature, Known
from probes.sparse.labels import LEVELS, POOLS, Labeller, Level, Pool
from probes.sparse.neurons import BINS, SHOWN
from probes.sparse.passes import first_pass, merged
from probes.sparse.rankers import STREAMED, Ranker
from probes.sparse.sources import Source, checked, layers, names
from probes.sparse.supports import METHODS, Method
from probes.sparse.word_labels import maker_of
from workbench.errors import SettingError, UnsupportedError
from workbench.instrument import Citation, Measured, Named, SetLevel, State
from workbench.models.captures import Captures, Read
from workbench.models.protocol import Model
from workbench.models.sites import BLOCK_SITES, expand_sites
from workbench.models.tokens import EncodedPrompt
from workbench.plans import make_plan
from workbench.prompts import Prompt, Prompts, PromptSet
from workbench.store.activations import Store

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import polars as pl
    import xarray as xr

    from workbench.figures.panels import Panel
    from workbench.report.sections import Section

__all__ = ["SparseProbe"]

SITES = (*BLOCK_SITES, "z")
WHO = "sparse_probe"
MOST_NAMED = 3  # features in a remark


@dataclass(frozen=True)
class SparseProbe(SetLevel):
    """k-sparse linear probes: which neurons, at which layer, carry a feature?

    For each feature and layer, a class-balanced L2 logistic regression on k units, chosen from all of
    them on training prompts; threshold from training and validation; figures on test prompts alone. The
    three are split by group, never by token. Beside them: the same of a control task (a random class for
    each token type), p values by permutations of whole groups, the greatest statistic taken over all
    units, layers and features of the run; and how well the difference of the class means, a direction of
    all units, does by itself, or a dense probe.

    With `sae`, the latents of sparse autoencoders are probed as the site's units are, at the layers that
    they read, and stand beside them: neurons against latents in one run, one family of p values, and, with
    `dense`, against all of what either is made of.

    Two passes over the prompts: class moments of every unit, which rank them; then the activations of the
    best `shortlist` units of each feature and layer, of which the probes are made. With the memory of
    what p values need (4 bytes x permutations x features x units) the first does not grow with prompts.

    Source: Gurnee, Nanda, Pauly, Harvey, Troitskii and Bertsimas 2023, "Finding Neurons in a Haystack:
    Case Studies with Sparse Probing", arXiv 2305.01610; control tasks: Hewitt and Liang 2019, arXiv
    1909.03368.

    Attributes:
        k: how many units a probe has; one number or several.
        token: "last": a prompt's labels, at its last token; "all": at each of its tokens, and labels of
            spans at each of theirs; "span": one example a span.
        site: mlp_act (neurons), mlp_out, attn_out, resid_pre, resid_mid, resid_post (coordinates), or z
            (all heads' outputs).
        sae: folders of SAEs in SAELens' format (cfg.json and sae_weights.safetensors; `workbench fit sae`
            makes one), one a site and layer. A folder may carry its hash, as in sae#0123456789abcdef.
        features: names of labels, or rules: token:digit, position:0, field=value (see
            `probes.sparse.predicates.rule_of`); every label of the prompts where empty.
        labels: built-in makers that label prompts which have no labels, beside those they have:
            atlas_facts, plurals, tenses, "compound:first second" (see `probes.sparse.word_labels`).
        layers: those of the site to probe; all where empty.
        method: "telescope" (the paper's adaptive thresholding), "swap", or "exhaustive" (of least
            training loss among all subsets of the shortlist, for k of 1 and 2).
        ranker: "mean_difference" or "f_statistic".
        pool: what of a span is read: "last", "first", "mean", "max".
        shortlist: how many units of a feature and layer the probes are chosen from; at least max k.
        permutations: for p values, of which the least is 1 / (permutations + 1); 0 for none. Where all
            groups have the same labels, half of either class, as words with both of their forms, classes
            are swapped within groups in place of labels between them; where they are uneven, there is no p.
        dense: whether to fit the whole site too, and of an SAE the states that it reads; those of all
            examples are then held in memory.
        c: inverse strength of the L2 penalty, on standardised activations.
        seed: of splits, control tasks and permutations.

    Result axes: feature, layer, k, slot, rank, label, bin, unit; with an SAE also site, where "sae:"
    before a site's name says latents. Variables by (feature, layer, k): f1, f1_low,
    f1_high (95% bootstrap interval over test groups), chance_low, chance_high (the middle 95% of F1 where
    test groups exchange their labels and the probe's answers stay), precision, recall, mcc,
    average_precision, roc_auc, threshold (logit), f1_at_zero (F1 at a threshold of 0), validation_f1,
    control_f1, selectivity (f1 less control_f1), compression (bits of a uniform over bits of an online
    code), p (the least of its units', each of which is tested by itself on all examples, so that it speaks
    of no held-out F1); by (feature, layer, k, slot) units and weight; by (feature, layer, rank), of the 8
    units that probes of growing k take first: neuron, its index, neuron_f1, held out, by a threshold on it
    alone, neuron_p, neuron_low and neuron_high, its least and greatest activation, and histogram, with
    (label, bin), the examples of either label in 24 equal bins between these; by (feature, layer)
    direction_f1 and dense_f1; by (feature, layer, unit) difference, of the training examples' class means;
    by feature examples, positives, all_positive and random (F1 of calling everything, or a share at random,
    positive). What does not exist is NaN; of whole numbers, units and neuron are -1 where there are fewer
    of them, and these and histogram are -1 at layers that a site does not have.

    To go on, a `ProbeResult` has each feature's `direction` for steering, and `ablate` takes its units out.

    >>> SparseProbe(k=[1, 8])(model, "facts.jsonl").to_frame()  # doctest: +SKIP
    """

    k: int | Sequence[int] = (1, 2, 4, 8, 16)
    token: Level = "last"
    site: str = "mlp_act"
    sae: str | Path | Sequence[str | Path] = ()
    features: str | Sequence[str] = ()
    labels: str | Sequence[str] = ()
    layers: int | Sequence[int] = ()
    method: Method = "telescope"
    ranker: Ranker = "mean_difference"
    pool: Pool = "last"
    shortlist: int = 50
    permutations: int = 200
    dense: bool = False
    c: float = 1.0
    seed: int = 0

    name: ClassVar[str] = WHO
    title: ClassVar[str] = "Sparse probes"
    files: ClassVar[tuple[str, ...]] = ("sae",)
    costly: ClassVar[bool] = True
    needs_set: ClassVar[bool] = True
    long_targets: ClassVar[bool] = True
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = MappingProxyType(
        {"f1": (0.0, 1.0), "p": (0.0, 1.0)}
    )
    citation: ClassVar[Citation] = PROBES
    _found: ClassVar[Known | None] = None  # an instance's own once it is settled
    _saes: ClassVar[Sequence[SparseAutoencoder]] = ()  # likewise, of its folders

    def __post_init__(self) -> None:
        for field in ("k", "layers"):
            given = getattr(self, field)
            several = tuple(sorted(set(given))) if isinstance(given, Iterable) else (given,)
            object.__setattr__(self, field, several)
        for field in ("features", "labels"):
            named = getattr(self, field)
            several = tuple(filter(None, (named,))) if isinstance(named, str) else tuple(named)
            object.__setattr__(self, field, several)
        for name in self.labels:
            maker_of(name)
        if not self._ks or any(type(k) is not int or k < 1 for k in self._ks):
            raise SettingError(f"{WHO}: k is {self.k!r}: expected whole numbers, at least 1")
        choices = {
            "token": LEVELS,
            "method": METHODS,
            "ranker": STREAMED,
            "pool": POOLS,
            "site": SITES,
        }
        for field, known in choices.items():
            one_of(WHO, field, getattr(self, field), known)
        for field, least in {"shortlist": 1, "permutations": 0}.items():
            value = getattr(self, field)
            if type(value) is not int or value < least:
                raise SettingError(f"{WHO}: {field} is {value!r}: expected at least {least}")
        if not self.c > 0:
            raise SettingError(f"{WHO}: c is {self.c!r}: expected a number above 0")
        self._open()

    def _open(self) -> None:
        """Read the SAEs; the setting then says which they are."""
        several = self.sae if isinstance(self.sae, list | tuple) else (self.sae,)
        opened = [SparseAutoencoder.named(one) for one in several if one not in ("", None)]
        checked([Source.of(sae) for sae in opened])
        object.__setattr__(self, "_saes", opened)
        object.__setattr__(self, "sae", tuple(f"{one.folder}#{one.hash}" for one in opened))

    def __call__(self, model: Model, prompts: Prompts, **options: Any) -> ProbeResult:
        """Probe `prompts`; `options` are those of `workbench.measure`."""
        return ProbeResult(super().__call__(model, prompts, **options).data)

    @property
    def _ks(self) -> Sequence[int]:
        assert isinstance(self.k, tuple)
        return self.k

    @classmethod
    def source(cls, settings: Mapping[str, Any]) -> Citation:
        """That of sparse probing; with an SAE, that of its latents too."""
        return LATENTS if settings.get("sae") else cls.citation

    def settled(self, model: Model, prompts: Iterable[Prompt]) -> Self:
        """With the examples of the whole set, their splits, controls and permutations."""
        if self._found is not None:
            return self
        labeller = Labeller(self.features, self.token, self.pool, self.labels)
        every = prompts if isinstance(prompts, PromptSet) else PromptSet.of(list(prompts))
        made = copy(self)
        found = Known.of(model, every, labeller, self.permutations, self.seed)
        object.__setattr__(made, "_found", found)
        return made

    @property
    def _known(self) -> Known:
        if self._found is None:
            raise SettingError(f"{WHO}: not settled on prompts: expected settled(model, prompts)")
        return self._found

    def prepare(self, model: Model) -> None:
        """Refuse layers that are not there, and models of two stacks."""
        expand_sites(self._sites, model.n_layers)
        if not isinstance(model, Store) and len(model.stacks) > 1:
            raise UnsupportedError(f"{WHO}: {model.name} has two stacks: expected a model of one")
        for sae in self._saes:
            sae.require(model)

    def remarks(self, model: Model) -> Sequence[str]:
        """Of each SAE what it explains and was fitted on, and of which features p values say what."""
        return [*(sae.remark(model) for sae in self._saes), *self._swapped(), *self._untested()]

    def _sources(self, n_layers: int) -> list[Source]:
        own = [Source(site.name, site) for site in expand_sites(self._sites, n_layers)]
        return [*own, *map(Source.of, self._saes)]

    def accept(self, prompt: EncodedPrompt) -> None:
        """Refuse a prompt whose labels cannot be read, or that is there twice."""
        self._known.require(prompt.prompt)

    def _swapped(self) -> Sequence[str]:
        swapped = [name for name, one in self._arranged if one.tested and one.swapping]
        if not swapped:
            return ()
        return (
            f"p of {_few(swapped)} by swapping the classes within groups, each of which has the same labels",
        )

    def _untested(self) -> Sequence[str]:
        untested = [name for name, one in self._arranged if not one.tested]
        if not untested:
            return ()
        return (
            f"no p value for {_few(untested)}: every group has the same labels, more of one class than of "
            "the other, so that neither exchanging nor swapping them is a test",
        )

    @property
    def _arranged(self) -> list[tuple[str, Feature]]:
        """Features of which p values are asked for."""
        features = {} if self._found is None else self._found.features
        return [(name, one) for name, one in features.items() if one.arrangements is not None]

    @property
    def _sites(self) -> list[tuple[str, int]] | str:
        assert isinstance(self.layers, tuple)
        return [(self.site, layer) for layer in self.layers] or self.site

    def reads(self, model: Model) -> Read:
        """The site and what SAEs read, at all tokens unless the last is enough."""
        sites = list(dict.fromkeys(one.site for one in self._sources(model.n_layers)))
        return Read(sites, "last" if self.token == "last" else "all")

    def coords(self, model: Model) -> Mapping[str, Sequence[Any]]:
        """Features, layers, k, and a probe's units by falling weight."""
        sources = self._sources(model.n_layers)
        return {
            "site": names(sources),
            "feature": list(self._known.features),
            "layer": layers(sources),
            "k": list(self._ks),
            "slot": list(range(1, max(self._ks) + 1)),
            "rank": list(range(1, SHOWN + 1)),
            "label": [0, 1],
            "bin": list(range(BINS)),
        }

    def start(self, model: Model) -> State:
        """Nothing."""
        return {}

    def update(self, state: State, captures: Captures) -> State:
        """Moments and sums of one more batch."""
        # where no layers are named, all of the site's were read, of which the last one is L
        sources = self._sources(max(captures.layers(self.site)))
        return merged(state, first_pass(captures, sources, self._known, self.pool))

    def merge(self, left: State, right: State) -> State:
        """Both together."""
        return merged(left, right)

    def finish(self, state: State) -> Measured:
        """How many examples there are: all that can be said without a second pass."""
        features = self._known.features.values()
        return {
            "examples": _by_feature([len(one.labels) for one in features]),
            "positives": _by_feature([int(one.labels.sum()) for one in features]),
        }

    def block_tokens(self, model: Model, prompts: Sequence[EncodedPrompt]) -> int:
        """Those of the second pass; none where the activations are stored."""
        if isinstance(model, Store):
            return 0
        sites = {source.site for source in self._sources(model.n_layers)}
        lengths, deepest = [len(prompt) for prompt in prompts], max(site.layer for site in sites)
        return make_plan(model, lengths, n_sites=len(sites), last_layer=deepest).block_tokens

    def conclude(self, state: State, model: Model) -> Measured:
        """The probes, from a second pass over the prompts.

        Raises:
            SettingError: k is larger than the site has units.
        """
        return self.conclude_paced(state, model, lambda _: None)

    def conclude_paced(self, state: State, model: Model, pace: Callable[[float], None]) -> Measured:
        """The same, saying how far it is."""
        asked = Asked(
            sources=self._sources(model.n_layers),
            positions="last" if self.token == "last" else "all",
            pool=self.pool,
            ks=self._ks,
            method=self.method,
            ranker=self.ranker,
            shortlist=self.shortlist,
            dense=self.dense,
            c=self.c,
            seed=self.seed,
        )
        return {**self.finish(state), **evaluated(asked, self._known, state, model, pace)}

    @classmethod
    def rows(cls, data: xr.Dataset) -> Iterator[dict[str, Any]]:
        """One row a (feature, layer, k); see `probes.sparse.rows`."""
        from probes.sparse.rows import rows

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
        """Held-out F1 of every feature at every layer; or one feature's, or its neurons at a layer.

        Args:
            data, theme: as for every instrument.
            prompt, selected: have no meaning here, where a result speaks of all prompts.
            options: `k`, for one k alone, in place of the smallest and the largest; or `feature`, for F1
                against k and along the layers; or `feature` and `layer`, for the histograms of the
                units that probes take first.

        Raises:
            ResultError: the result does not have what is asked for.
        """
        from probes.sparse.figures import figure

        return figure(data, theme=theme, **options)

    @classmethod
    def panels(
        cls,
        data: xr.Dataset,
        *,
        prompt: str | int | None = None,
        position: int | None = None,
        site: str | None = None,
    ) -> Sequence[Panel]:
        """F1 of the smallest and of the largest k along the layers; see `probes.sparse.panels`."""
        from probes.sparse.panels import panels

        return panels(data)

    @classmethod
    def section(cls, rows: pl.LazyFrame, data: xr.Dataset | None = None) -> Section:
        """Each feature's best layer, and F1 along the layers."""
        from probes.sparse.report import section

        return section(rows, data)


def _by_feature(values: Sequence[int]) -> Named:
    return Named(("feature",), torch.tensor(values), "examples")


def _few(names: Sequence[str]) -> str:
    """The first of some features, and how many more."""
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(map(repr, names[:MOST_NAMED])) + more
