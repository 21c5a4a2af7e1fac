"""Ablate: heads, MLPs, attention or blocks taken out, and what it does to loss and answer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import torch
from torch import Tensor

from probes.ablation.clean import Clean, alike
from probes.ablation.measure import Plan, measured
from probes.ablation.reference import Reference, field_of
from probes.ablation.settings import checked, layers_of
from probes.ablation.values import Means, Values
from probes.causal.metrics import UNITS, Metric, require_goal
from workbench.errors import PromptError, SettingError, UnsupportedError
from workbench.instrument import Citation, Measured, Named, Paced
from workbench.models.batch import Batch, Places
from workbench.models.protocol import Model
from workbench.models.tokens import EncodedPrompt
from workbench.prompts import Prompt

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import polars as pl
    import xarray as xr

    from workbench.figures.panels import Panel
    from workbench.report.sections import Section

__all__ = ["Ablate"]

WORDS = {"mean": "Means", "resample": "Resampled values"}


@dataclass(frozen=True)
class Ablate(Paced):
    """Take a component out of the model, everywhere in the prompt, and see what it was worth.

    For a prompt of tokens x_1 .. x_T and each component c, whose value v_c is replaced at every
    position:

        loss_c = -1 / (T - 1) sum_t log p_c(x_t+1 | x_1 .. x_t)    in nat per token,
        score_c = the target's score behind the prompt, by `metric`,

    beside the clean run's. What is put in v_c's place:

        zero: nothing. A head's output z is 0 (attention's output bias stays); an attention or an MLP
            adds nothing to the residual stream, its bias neither; a block is short-circuited.
        mean: the mean of v_c over the tokens of the reference texts.
        resample: v_c on another reference text, at the position that stands for this one: the first
            for the first, the last for the last, in between in proportion (the same position where
            both have as many tokens); `draws` texts, none twice. A block's value is what it adds.

    The reference texts are the prompts that are measured, or those of a file; of more than `texts`,
    as many are drawn by their hash and `seed`. Shards of a prompt set have the same.

    Control: the residual stream after the last ablated layer moved as far as the ablation moves it, at
    each token, in a random direction; what any change of that size does. A component that matters
    no more than its control is worth nothing in particular.

    Cost: one pass, and for each ablation the blocks above it alone (b..L - 1 for one that ends with
    block b; a head, or an attention, costs its own block too; a chain of them is run once for all
    ranges that begin with it). `block_tokens` has what was run of a prompt, padding counted and passes
    over the reference texts not.

    Later components may make up for what is missing, so a small effect does not show that a
    component does nothing.

    Source: zero and mean ablation of heads: Michel, Levy and Neubig 2019, arXiv 1905.10650; mean
    ablation: Wang et al. 2022, arXiv 2211.00593; resampling: Chan et al. 2022, "Causal scrubbing".

    Attributes:
        what: heads, mlp, attention, or blocks.
        how: zero, mean, or resample.
        each: what is taken out at a time: one layer's, or those of every range first..last of layers
            (not of heads).
        layers: 1..L, or "all": those that are ablated, or that a range begins and ends with.
        metric: probability, logprob, logit_difference (target less foil), or kl, which needs no target.
        mean: one mean over all positions, or one at each position (over all where fewer than two texts
            reach). A position that few texts reach has much of the prompt's own value in its mean:
            give a reference file where lengths differ.
        draws: resampled texts a prompt.
        control: random directions an ablation; 0 for none.
        compare: a field of the prompts whose values are to be compared, such as memorised; their
            means are kept apart, and their difference has an interval.
        reference: a prompt file for means and resampling; the measured prompts where it is empty.
        texts: the most reference texts.
        seed: of the draws.

    Result axes: place (the last of each prompt); layer (of a range the first); head, or layer_end (of
    a range the last); draw; control. Variables: score, loss (place, layer, ..., draw), random_score,
    random_loss (place, layer, ..., control); clean, loss_clean, block_tokens, and label, the index of
    the compared field's value (place). NaN where a range ends before it begins, and for the loss of a
    prompt of one token.

    >>> Ablate(what="mlp", how="mean")(model, facts).plot()  # doctest: +SKIP
    """

    what: Literal["heads", "mlp", "attention", "blocks"] = "heads"
    how: Literal["zero", "mean", "resample"] = "zero"
    each: Literal["layer", "range"] = "layer"
    layers: str | Sequence[int] = "all"
    metric: Metric = "logprob"
    mean: Literal["all", "position"] = "all"
    draws: int = 8
    control: int = 1
    compare: str = ""
    reference: str = ""
    texts: int = 64
    seed: int = 0

    name: ClassVar[str] = "ablate"
    title: ClassVar[str] = "Ablation"
    long_targets: ClassVar[bool] = True
    costly: ClassVar[bool] = True
    most_prompts: ClassVar[int | None] = 8
    files: ClassVar[tuple[str, ...]] = ("reference",)
    prompt_files: ClassVar[tuple[str, ...]] = ("reference",)
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = MappingProxyType(
        {"loss": (0.0, math.inf), "loss_clean": (0.0, math.inf)}
    )
    citation: ClassVar[Citation] = Citation(
        "Components of {model} were ablated (Michel et al., 2019; Wang et al., 2022; {settings}) beside "
        "random changes of the residual stream of the same norm",
        "@inproceedings{michel2019sixteen,\n"
        "  title     = {Are Sixteen Heads Really Better than One?},\n"
        "  author    = {Michel, Paul and Levy, Omer and Neubig, Graham},\n"
        "  booktitle = {Advances in Neural Information Processing Systems},\n"
        "  year      = {2019},\n"
        "  note      = {arXiv:1905.10650}\n"
        "}",
    )
    _reference: ClassVar[Reference | None] = None  # an instance's own once it is settled
    _means: ClassVar[tuple[Model, Means] | None] = None

    def __post_init__(self) -> None:
        checked(self)

    def settled(self, model: Model, prompts: Iterable[Prompt]) -> Self:
        """With the reference texts, and the values of the compared field, of the whole set."""
        if self._reference is not None:
            return self
        found = Reference.of(
            prompts, file=self.reference, most=self.texts, seed=self.seed, field=self.compare
        )
        made = copy(self)
        object.__setattr__(made, "_reference", found)
        return made

    def prepare(self, model: Model) -> None:
        """Refuse models that predict no next tokens, and layers beyond the last."""
        if not model.causal or len(model.stacks) > 1:
            raise UnsupportedError(
                f"{model.name}: ablate needs a decoder, which predicts next tokens"
            )
        layers_of(self.layers, model.n_layers)

    def accept(self, prompt: EncodedPrompt) -> None:
        """Refuse a prompt without what the metric, the comparison or the resampling needs."""
        require_goal(prompt, self.metric, "ablate")
        name = f"ablate: prompt {prompt.text[:40]!r}"
        if self.compare and field_of(prompt.prompt, self.compare) is None:
            raise PromptError(
                f"{name} has no field {self.compare!r}, by which prompts are compared"
            )
        others = len(self._drawn.others(prompt.prompt))
        if self.how == "resample" and others < self.draws:
            raise PromptError(
                f"{name}: {others} other texts to resample from: expected draws={self.draws} of them; give "
                "more prompts, a reference file, or fewer draws"
            )

    def remarks(self, model: Model) -> Sequence[str]:
        """What means and draws are of."""
        said = [
            "Later components may make up for an ablated one: a small effect is no proof that it does nothing"
        ]
        if self.how != "zero":
            said.append(f"{WORDS[self.how]} are of {self._drawn.said}")
        return said

    def coords(self, model: Model) -> Mapping[str, Sequence[Any]]:
        """Layers, and heads or last layers; draws and controls; the values of the compared field."""
        layers, labels = layers_of(self.layers, model.n_layers), list(self._drawn.labels)
        return {
            "layer": layers,
            "head": list(range(model.n_heads)),
            "layer_end": layers,
            "draw": list(range(self._draws)),
            "control": list(range(self.control)),
        } | ({"label_name": ("label_name", labels)} if labels else {})

    def block_tokens(self, model: Model, prompts: Sequence[EncodedPrompt]) -> int:
        """Those of the prompts, their ablations and controls, without padding.

        Passes over reference texts are left out, as in the result.
        """
        tokens = sum(len(one) + max(0, len(one.answer) - 1) for one in prompts)
        return tokens * self._plan(model).passes(model.n_layers, model.n_heads)

    def drive_paced(
        self, model: Model, batch: Batch, pace: Callable[[float], None]
    ) -> tuple[Places, Measured]:
        """Prompts whose targets have equally many tokens together."""
        groups = alike(batch.prompts)
        found = []
        for number, rows in enumerate(groups):
            share = _Share(pace, number, len(groups))
            found.append(self._of(model, [batch.prompts[row] for row in rows], share))
        order = torch.tensor([row for rows in groups for row in rows]).argsort()
        joined = {name: torch.cat([one[name] for one in found])[order] for name in found[0]}
        measured = {name: Named(*self._form(name, values)) for name, values in joined.items()}
        return batch.places("last"), measured

    def _of(
        self, model: Model, prompts: Sequence[EncodedPrompt], pace: Callable[[float], None]
    ) -> dict[str, Tensor]:
        """The variables of prompts whose targets have equally many tokens."""
        clean = Clean.of(model, prompts, self.metric, mlp=self.what == "mlp")
        found = measured(clean, self._plan(model), lambda draw: self._values(clean, draw), pace)
        if self.compare:
            found["label"] = torch.tensor([self._label(one) for one in prompts])
        return found

    def _plan(self, model: Model) -> Plan:
        layers = layers_of(self.layers, model.n_layers)
        return Plan(self.what, layers, self.each == "range", self._draws, self.control, self.seed)

    def _values(self, clean: Clean, draw: int) -> Values:
        """What is put in, in one draw."""
        model, like = clean.model, clean.states[0]
        if self.how == "zero":
            return Values.zero(like, model.n_layers)
        if self.how == "mean":
            means = self._means_of(model)
            return means.values(self.mean == "position", like.shape[1], like)
        drawn, prompts = self._drawn, clean.batch.prompts
        donors = [drawn.donors(one.prompt, self.draws, self.seed)[draw] for one in prompts]
        return Values.resampled(model, self.what, clean.batch, donors)

    def _means_of(self, model: Model) -> Means:
        """The means, from one pass at the first batch."""
        if self._means is None or self._means[0] is not model:
            found = (model, Means.of(model, self.what, self._drawn))
            object.__setattr__(self, "_means", found)
        assert self._means is not None
        return self._means[1]

    def _form(self, name: str, values: Tensor) -> tuple[tuple[str, ...], Tensor, str]:
        """Axes, values and unit of a variable."""
        unit = "nat" if "loss" in name else UNITS[self.metric]
        unit = {"block_tokens": "block-tokens", "label": "index"}.get(name, unit)
        if values.dim() == 1:
            return ("place",), values, unit
        last = "control" if name.startswith("random") else "draw"
        if self.what == "heads" or self.each == "range":
            second = "head" if self.what == "heads" else "layer_end"
            return ("place", "layer", second, last), values, unit
        return ("place", "layer", last), values[:, :, 0], unit

    def _label(self, prompt: EncodedPrompt) -> int:
        value = field_of(prompt.prompt, self.compare)
        assert value is not None
        return self._drawn.labels.index(value)

    @property
    def _draws(self) -> int:
        return self.draws if self.how == "resample" else 1

    @property
    def _drawn(self) -> Reference:
        if self._reference is None:
            raise SettingError(
                "ablate: not settled on a prompt set: expected settled(model, prompts)"
            )
        return self._reference

    @classmethod
    def rows(cls, data: xr.Dataset) -> Iterator[dict[str, Any]]:
        """One row a (prompt, layer, head or last layer)."""
        from probes.ablation.rows import rows

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
        """Effects on loss and score beside their controls; the mean over all prompts, or of one.

        Args:
            data, theme: as for every instrument.
            prompt: one prompt's alone; the mean over all where None.
            selected: the (layer, position) to mark.
            options: there are none.
        """
        from probes.ablation.figures import figure

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
        """The effects of one prompt's ablations on its score and loss, and their controls."""
        from probes.ablation.panels import of_prompt, panels

        return panels(of_prompt(data, prompt))

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
        """Score and loss before and after, beside the control; of heads and ranges the strongest."""
        from probes.ablation.facts import facts

        return facts(data, layer=layer, prompt=prompt)

    @classmethod
    def section(cls, rows: pl.LazyFrame, data: xr.Dataset | None = None) -> Section:
        """The strongest components with intervals and controls, and the compared values."""
        from probes.ablation.report import section

        return section(rows)


@dataclass(frozen=True)
class _Share:
    """The pace of one of several groups."""

    pace: Callable[[float], None]
    number: int
    count: int

    def __call__(self, done: float) -> None:
        self.pace((self.number + done) / self.count)
