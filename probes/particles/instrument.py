"""Particles: how ordered, clustered and spread a prompt's states are, layer by layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from probes.particles.controlled import Controlled
from probes.particles.histograms import centres
from probes.particles.measured import How, norm_ratio
from probes.particles.quantities import HISTOGRAMS, QUANTITIES
from workbench.errors import SettingError
from workbench.instrument import Citation, Measured, Reading
from workbench.models.captures import Captures
from workbench.models.protocol import Model
from workbench.models.tokens import EncodedPrompt

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import polars as pl
    import xarray as xr

    from workbench.figures.panels import Panel
    from workbench.report.sections import Section

__all__ = ["Particles"]

WHO = "particles"
COLDEST = 700  # beta: e^700 is a float64 still


@dataclass(frozen=True)
class Particles(Controlled, Reading):
    """Tokens as particles on the sphere: order and clusters of a model's states, beside controls.

    The states resid_post of a prompt's tokens are taken to unit length, layer by layer, and described as
    a set: do they point one way (mean cosine, order parameter), in how many groups are they
    (participation ratio, Vendi score, components), how near is the nearest other, how far are they from
    one vector, and how far did the layer move them. The last state is that before the final norm.

    First those tokens are left out that decide every mean: a special token that opens the prompt, and
    at each layer tokens whose norm is above 10 times the median (their number is said). `centred` takes
    off each layer's mean over a held-out corpus, since all states of a layer share a direction that says
    nothing of the prompt; the prompt's own mean would make its order 0 by construction.

    Order by itself says little: random weights alone order tokens with depth. So the same is measured of
    twins that were never trained, and of the prompt with its tokens shuffled, in passes of their own;
    each twin is centred on its own mean. Of n random directions r is about 1/sqrt(n), which makes short
    prompts look ordered: read the mean cosine first, of which chance gives 0.

    Source: Geshkovski, Letrouit, Polyanskiy and Rigollet 2025, "A mathematical perspective on
    Transformers", arXiv 2312.10794; rank residuals of Dong et al. 2021, arXiv 2103.03404; Vendi score of
    Friedman and Dieng 2023, arXiv 2210.02410.

    Attributes:
        drop: "default" leaves out special tokens that open a prompt, and sinks; "none" leaves out none.
        corpus: a prompt file whose mean is taken off, of at least 1,000 tokens; bundled sentences where
            empty.
        beta: inverse temperature of the interaction energy and the mean-field force, at most 700.
        views: some of raw, centred, random (twins) and shuffled; all that can be had where empty, and
            the result says what could not be. Twins of more than 10^9 parameters are drawn only where
            they are named here.
        draws: how many twins, and how many shufflings of each prompt.
        seed: of the first twin and shuffling.
        expensive: whether to compute the Vendi score and the first principal component, which cost
            min(n, d)^3 a prompt and layer, the intrinsic dimension, in float64, and the mean-field force,
            another n^2 d.
        clusters: of how many k-means clusters to give the silhouette, 10 starts a prompt, layer and view,
            and whether to count agglomerative and HDBSCAN clusters beside them; 0 for none. K-means finds
            so many in random directions too: hold it against the controls'.
        positions: which tokens are particles.

    Result axes: prompt, view, draw, layer, and cosine (the middles of 40 bins). Views are raw, centred,
    random, random_centred, shuffled and shuffled_centred. Variables by (prompt, view, draw, layer):
    mean_cosine, order_parameter, order_debiased, participation_ratio, vendi, components, concentration (mean
    cosine with the nearest other token), coinciding (share of pairs above .999), cosine_5, cosine_50 and
    cosine_95 (quantiles over pairs, to a bin), energy, force (mean length of the mean-field force),
    spin_energy (-r^2/2), rank_residual (relative Frobenius), composite_residual (in the length of states;
    alike raw and centred by construction, since R has its tokens' own mean taken off) and composite_share
    (of the states' own composite norm), component_share (of the variance along the first principal
    component), intrinsic_dimension (TwoNN, of at least 50 different tokens), silhouette (of k-means
    clusters), agglomerative, hdbscan and hdbscan_noise (clusters, and the share of tokens in none), step and
    turn (of the layer that ends here), top_dimensions_energy and top_dimensions_cosine (what the 3 largest
    dimensions carry), tokens, sinks and zeros (how many count, are left out by their norm, and for having no
    direction); by (prompt, view, draw) straightness. By cosine too: cosine_histogram (share of pairs) and
    component_histogram (share of tokens by their cosine with the first principal component, whose sign is
    each layer's own). By (layer, place) norm_ratio: a token's norm over the median of its prompt. NaN is
    what does not exist: draws of a view that has fewer, and numbers of a set where fewer than two tokens
    count. How much their mean direction differs from prompt to prompt is the instrument `spins`.

    >>> Particles()(model, "The Eiffel Tower is located in the city of").plot()  # doctest: +SKIP
    """

    beta: float = 1.0
    expensive: bool = True
    clusters: int = 0

    name: ClassVar[str] = WHO
    title: ClassVar[str] = "Particles"
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = MappingProxyType(
        {name: (one.low, one.high) for name, one in {**QUANTITIES, **HISTOGRAMS}.items()}
    )
    figures: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "order": "Order along the layers",
            "cosines": "Cosines of pairs",
            "component": "Cosines with the first component",
        }
    )
    citation: ClassVar[Citation] = Citation(
        "Tokens of {model} were described as interacting particles, layer by layer, beside untrained "
        "twins and shuffled tokens (Geshkovski et al., 2025; {settings})",
        "@article{geshkovski2025mathematical,\n"
        "  title   = {A mathematical perspective on {Transformers}},\n"
        "  author  = {Geshkovski, Borjan and Letrouit, Cyril and Polyanskiy, Yury and Rigollet,\n"
        "             Philippe},\n"
        "  journal = {Bulletin of the American Mathematical Society},\n"
        "  year    = {2025},\n"
        "  note    = {arXiv:2312.10794}\n"
        "}",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if type(self.beta) not in (int, float) or not 0 < self.beta <= COLDEST:
            raise SettingError(
                f"{WHO}: beta is {self.beta!r}: expected a number above 0, at most {COLDEST}, above "
                "which energies are beyond float64"
            )
        if type(self.expensive) is not bool:
            raise SettingError(f"{WHO}: expensive is {self.expensive!r}: expected true or false")
        if type(self.clusters) is not int or self.clusters < 0 or self.clusters == 1:
            raise SettingError(
                f"{WHO}: clusters is {self.clusters!r}: expected 0 for none, or at least 2"
            )

    # --- what is measured ------------------------------------------------------------------

    def _how(self, model: Model) -> How:
        return How(
            model.tokens,
            self.drop,
            self.beta,
            self.expensive,
            clusters=self.clusters,
            seed=self.seed,
        )

    def coords(self, model: Model) -> Mapping[str, Sequence[Any]]:
        """Views, draws from 0, layers 0..L, and the middles of histograms' bins."""
        found = self._settled
        return {
            "view": found.names,
            "draw": list(range(found.draws)),
            "layer": list(range(model.n_layers + 1)),
            "cosine": centres(),
        }

    def measure(self, captures: Captures) -> Measured:
        """The raw view alone: the others take passes of the model."""
        return {**self._settled.raw_alone(captures), "norm_ratio": norm_ratio(captures)}

    def measure_beside(self, captures: Captures, model: Model) -> Measured:
        """All views."""
        return {**self._settled.of(captures, model), "norm_ratio": norm_ratio(captures)}

    def block_tokens(self, model: Model, prompts: Sequence[EncodedPrompt]) -> int:
        """Those of twins and shufflings; the pass over the corpus, which is kept, is not counted."""
        return self._controls(model, prompts)

    # --- what is shown ---------------------------------------------------------------------

    @classmethod
    def rows(cls, data: xr.Dataset) -> Iterator[dict[str, Any]]:
        """One row a (prompt, layer, view); see `probes.particles.rows`."""
        from probes.particles.rows import rows

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
        """Mean cosine and order parameter along the layers, raw and centred, beside the controls.

        Args:
            data, theme, prompt, selected: as in every figure.
            options: `shows`, one of `Particles.figures`: "order"; "cosines", how the pairs' cosines are
                spread at each layer; "component", the tokens' with the first principal component.
        """
        from probes.particles.figures import figure

        return figure(data, theme=theme, prompt=prompt, selected=selected, **options)

    @classmethod
    def panels(
        cls,
        data: xr.Dataset,
        *,
        prompt: str | int | None = None,
        position: int | None = None,
        site: str | None = None,
    ) -> Sequence[Panel]:
        """Mean cosine beside its controls, clusters, and steps; of the whole prompt."""
        from probes.particles.panels import panels

        return panels(data, prompt=prompt)

    @classmethod
    def facts(
        cls,
        data: xr.Dataset,
        *,
        layer: int,
        prompt: str | int | None = None,
        position: int | None = None,
        site: str | None = None,
    ) -> list[tuple[str, str]]:
        """Order, clusters and steps of the prompt at a layer, and the token's norm."""
        from probes.particles.facts import facts

        return facts(data, layer=layer, prompt=prompt, position=position)

    @classmethod
    def section(cls, rows: pl.LazyFrame, data: xr.Dataset | None = None) -> Section:
        """What differs from the twin and from shuffled tokens over the prompts, and what does not."""
        from probes.particles.report import section

        return section(rows)
