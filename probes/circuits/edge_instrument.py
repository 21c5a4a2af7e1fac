"""Edge attribution: which connections between heads and MLPs carry an effect, and how far that holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from probes.causal.effects import Direction
from probes.causal.metrics import UNITS
from probes.circuits.edges import edge_scores
from probes.circuits.exact import mean_and_error
from probes.circuits.faithfulness import faithfulness, random_orders, sizes_up_to
from probes.circuits.nodes import Nodes
from probes.circuits.settings import Approximating
from probes.settings import whole_number
from workbench.errors import SettingError
from workbench.instrument import Citation, Measured, Named
from workbench.models.batch import Batch, Places
from workbench.models.protocol import Model
from workbench.models.tokens import EncodedPrompt

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import polars as pl
    import xarray as xr

    from workbench.figures.panels import Panel
    from workbench.report.sections import Section

__all__ = ["EdgeAttribution"]

DIMS = {
    "score": ("place", "sender", "receiver"),
    "stderr": ("place", "sender", "receiver"),
    "faithfulness": ("place", "edges"),
    "random_faithfulness": ("place", "edges", "draw"),
}
APPROXIMATE = (
    "Scores of edges are a first-order approximation of what patching each edge does; the faithfulness "
    "curve is exact: every other edge is patched, block by block"
)


@dataclass(frozen=True)
class EdgeAttribution(Approximating):
    """Edge attribution patching: a score for every connection between heads, MLPs and the logits.

    Senders are the embedding, each head and each MLP; receivers the queries, keys and values of each head,
    each MLP, and the logits. A receiver reads the sum of all earlier senders (and of biases), through its
    norm; of the edge from u to v

        score = sum over positions of (u's output in the source run - in the base run) . grad at v's input

    is to first order the change of the metric when v alone reads u's output from the other run. Noising
    (the base run is clean) is EAP; with `steps` the gradient is averaged over runs from embeddings on the
    straight way between the two runs (EAP-IG; a Gauss-Legendre rule). Scores into a receiver sum to the
    attribution of its input.

    The faithfulness curve is exact: of the k edges with the largest |score| the values of the run itself are
    read, of all others the corrupted run's; what is left of clean - corrupted is drawn over k, beside as many
    edges drawn at random. It is measured on the prompt whose scores chose the edges, so that it says how
    well k edges can do and not how well they carry over. It may pass 1, or fall below 0.

    Families whose branches add to the stream through norms (Gemma 2 and 3, OLMo 2) and experts are refused,
    as their parts do not sum to what others read.

    Scores of all edges cost a few passes, of which two forward and one backward are once a step; the curve
    costs for each size and draw one pass block by block.

    Source: Syed et al. 2023, arXiv 2310.10348; Hanna et al. 2024, arXiv 2403.17806.

    Attributes:
        metric: logprob, logit_difference or kl; auto: logit_difference where every prompt has a foil, else
            logprob.
        direction: noising (EAP) or denoising.
        corruption: noise (on the subject's token embeddings), replace (by each prompt's corrupted text), or
            auto: replace where every prompt has one, else noise.
        steps: points of the gradient's mean along the embeddings; 0 for the gradient at the base run alone.
        noise: standard deviations of the noise, in units of noise_std.
        noise_std: None for the standard deviation of the subjects' embeddings over all prompts.
        samples: how many draws of noise.
        seed: of the draws, and of the random edges.
        sizes: numbers of edges of the faithfulness curve; auto: 0, 1, 2, 5, 10, ... and all.
        draws: orders of random edges that the curve is held against.

    Result axes: place (the last of each prompt), sender, receiver, edges (of a circuit), draw; parts,
    layers and heads of senders and receivers beside them. Variables: score and stderr (place, sender,
    receiver; NaN where there is no edge; stderr over the samples), faithfulness (place, edges),
    random_faithfulness (place, edges, draw), NaN where the total effect is about 0 (below .01 in logprob
    or logit difference, .001 in KL), clean and corrupted (place).

    >>> EdgeAttribution(steps=5)(model, prompts).plot(edges=40)  # doctest: +SKIP
    """

    direction: Direction = "noising"
    sizes: str | Sequence[int] = "auto"
    draws: int = 4

    name: ClassVar[str] = "edge_attribution"
    title: ClassVar[str] = "Edge attribution"
    long_targets: ClassVar[bool] = True
    needs_weights: ClassVar[bool] = True
    costly: ClassVar[bool] = True
    most_prompts: ClassVar[int | None] = 1
    citation: ClassVar[Citation] = Citation(
        "Connections between components of {model} were scored by edge attribution patching (Syed et "
        "al., 2023; {settings}) and their faithfulness measured by patching all others",
        "@misc{syed2023attribution,\n"
        "  title  = {Attribution Patching Outperforms Automated Circuit Discovery},\n"
        "  author = {Syed, Aaquib and Rager, Can and Conmy, Arthur},\n"
        "  year   = {2023},\n"
        "  note   = {arXiv:2310.10348}\n"
        "}",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        whole_number(self.name, "draws", self.draws, 0)
        if isinstance(self.sizes, str) and self.sizes == "auto":
            return
        given = (self.sizes,) if isinstance(self.sizes, int) else tuple(self.sizes)
        if not given or any(type(one) is not int or one < 0 for one in given):
            raise SettingError(
                f"{self.name}: sizes is {self.sizes!r}: expected numbers of edges, 0 or more, or auto"
            )
        object.__setattr__(self, "sizes", tuple(sorted(set(given))))

    def prepare(self, model: Model) -> None:
        """Refuse a model whose parts do not come apart, and circuits larger than it."""
        nodes = Nodes.of(model, self.name)
        most, count = self._sizes(nodes)[-1], int(nodes.edges.sum())
        if most > count:
            raise SettingError(f"{self.name}: sizes has {most}: {model.name} has {count} edges")

    def remarks(self, model: Model) -> Sequence[str]:
        """What is approximate, and what is exact."""
        return [APPROXIMATE]

    def coords(self, model: Model) -> Mapping[str, Sequence[Any]]:
        """Senders and receivers with their parts, layers and heads; numbers of edges; draws."""
        nodes = Nodes.of(model, self.name)
        found: dict[str, Any] = {
            "edges": self._sizes(nodes),
            "draw": list(range(self.draws)),
        }
        for dim, those in (("sender", nodes.senders), ("receiver", nodes.receivers)):
            found[dim] = [str(node) for node in those]
            for part in ("part", "layer", "head"):
                found[f"{dim}_{part}"] = (dim, [getattr(node, part) for node in those])
        return found

    def _sizes(self, nodes: Nodes) -> list[int]:
        if isinstance(self.sizes, str):
            return sizes_up_to(int(nodes.edges.sum()))
        return list(self.sizes)

    def drive_paced(
        self, model: Model, batch: Batch, pace: Callable[[float], None]
    ) -> tuple[Places, Measured]:
        """Prompt by prompt; each says how much of its curve is done."""
        nodes = Nodes.of(model, self.name)
        control = random_orders(nodes, self.draws, self.seed)
        found = []
        for number, prompt in enumerate(batch.prompts):

            def part(done: float, number: int = number) -> None:
                pace((number + done) / len(batch))

            found.append(self._of_prompt(model, prompt, nodes, control, part))
        unit = UNITS[self._scored]
        return batch.places("last"), {
            name: Named(
                DIMS.get(name, ("place",)),
                torch.stack([one[name] for one in found]),
                "share" if "faithfulness" in name else unit,
            )
            for name in found[0]
        }

    def _of_prompt(
        self,
        model: Model,
        prompt: EncodedPrompt,
        nodes: Nodes,
        control: Sequence[Tensor],
        pace: Callable[[float], None],
    ) -> dict[str, Tensor]:
        pair = self.pair(model, prompt)
        score, stderr = mean_and_error(edge_scores(pair, nodes, self.direction, self.steps), 0)
        ends = (pair.contrast.clean[0], pair.contrast.corrupted[0])
        clean, corrupted = (pair.read(states, [("resid_post", 0)])[1].mean() for states in ends)
        sizes = self._sizes(nodes)
        kept, random = faithfulness(pair, nodes, score, sizes, control, (clean, corrupted), pace)
        there = nodes.edges.to(score.device)
        return {
            "score": torch.where(there, score, torch.nan),
            "stderr": torch.where(there, stderr, torch.nan),
            "faithfulness": kept,
            "random_faithfulness": random,
            "clean": clean,
            "corrupted": corrupted,
        }

    @classmethod
    def rows(cls, data: xr.Dataset) -> Iterator[dict[str, Any]]:
        """One row an edge, the largest first, then one a circuit of the curve."""
        from probes.circuits.edge_rows import rows

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
        """The edges with the largest scores between the layers, and the faithfulness curve.

        Args:
            data, theme, prompt: as for every instrument.
            selected: the (layer, position) to mark.
            options: `edges`, how many edges are drawn, 24 where it is not given.
        """
        from probes.circuits.edge_figures import figure

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
        """What each head sends and reads, and what each MLP does, by layer."""
        from probes.circuits.edge_panels import panels

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
        """The largest edges out of and into a layer."""
        from probes.circuits.edge_panels import facts

        return facts(data, layer=layer, prompt=prompt)

    @classmethod
    def section(cls, rows: pl.LazyFrame, data: xr.Dataset | None = None) -> Section:
        """The faithfulness curve over the prompts, and the edges with the largest mean score."""
        from probes.circuits.edge_report import section

        return section(rows)
