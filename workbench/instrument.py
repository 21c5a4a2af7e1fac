"""What an instrument is: settings that say what to read, and how to turn it into named numbers.

Three shapes. A *reading* instrument is fed by the common forward pass; a *driving* one runs the
model itself; a *set-level* one keeps a state over the whole prompt set. Instruments are found by
name through the entry points of the group `workbench.instruments`, so that a plug-in is a package.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Self

from torch import Tensor

from workbench.errors import SettingError
from workbench.models.batch import Batch, Places
from workbench.models.captures import Captures, Read
from workbench.models.protocol import Model
from workbench.models.tokens import EncodedPrompt
from workbench.prompts import Prompt, Prompts

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import polars as pl
    import xarray as xr

    from workbench.figures.panels import Panel
    from workbench.report.sections import Section
    from workbench.results import Result

__all__ = [
    "Citation",
    "Driving",
    "Instrument",
    "Measured",
    "Named",
    "Paced",
    "Reading",
    "SetLevel",
    "State",
    "find",
    "names",
]

GROUP = "workbench.instruments"


@dataclass(frozen=True)
class Named:
    """A tensor whose axes have names.

    Attributes:
        dims: one name an axis, in the field's words; "place" is the stacked (prompt, position).
        values: the numbers.
        unit: nat, logit, probability, rank, layer, token id, ...
    """

    dims: tuple[str, ...]
    values: Tensor
    unit: str


Measured = Mapping[str, Named]
"""What an instrument makes of one batch: variables with an axis "place" or "prompt" each."""


@dataclass(frozen=True)
class Citation:
    """The method's source.

    Attributes:
        sentence: for a methods section; `{settings}` stands for the settings used.
        bibtex: the entry.
    """

    sentence: str
    bibtex: str


class Instrument(ABC):
    """Base of the three shapes. Subclasses are frozen dataclasses of their settings.

    Attributes:
        name: as the command line and stored results call it.
        title: as the app and reports call it.
        citation: the method's source.
        long_targets: whether it takes targets of several tokens.
        needs_weights: whether it reads the model's weights, which a store of activations lacks.
        files: settings that name a file; a page takes for them the names that it offers, no path.
        prompt_files: those of them that name a prompt file; a page offers prompt sets for them.
        costly: whether the app measures it from its own tab alone, and not with every prompt.
        needs_set: whether it says nothing of one prompt; the app then offers it for prompt sets alone.
        needs_prompts: whether prompts matter to it; they do not where the weights alone speak.
        most_prompts: the most in a batch, where it works prompt by prompt all the same, so that a long
            run tells how far it is and can be cancelled; None where batches save time.
        ranges: the least and the largest that a variable can be, by its name, where it has such
            ends: a report's intervals are cut there.
        figures: values of the figure's option `shows`, the first its default, by what the page's list
            calls them; empty where there is one figure.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    citation: ClassVar[Citation]
    long_targets: ClassVar[bool] = False
    needs_weights: ClassVar[bool] = False
    files: ClassVar[tuple[str, ...]] = ()
    prompt_files: ClassVar[tuple[str, ...]] = ()
    costly: ClassVar[bool] = False
    needs_set: ClassVar[bool] = False
    needs_prompts: ClassVar[bool] = True
    most_prompts: ClassVar[int | None] = None
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = MappingProxyType({})
    figures: ClassVar[Mapping[str, str]] = MappingProxyType({})

    def __call__(self, model: Model, prompts: Prompts, **options: Any) -> Result:
        """Measure `prompts`; `options` are those of `workbench.measure`."""
        from workbench.passes import measure

        return measure(model, prompts, [self], **options)[0]

    def settings(self) -> dict[str, Any]:
        """The settings as plain data."""
        return dataclasses.asdict(self)  # type: ignore[call-overload, no-any-return]

    @classmethod
    def source(cls, settings: Mapping[str, Any]) -> Citation:
        """The source of what was done with these settings; by default the method's one."""
        return cls.citation

    @classmethod
    def heading(cls, data: xr.Dataset) -> str:
        """What figures of several results call this one; by default the title."""
        return cls.title

    def settled(self, model: Model, prompts: Iterable[Prompt]) -> Self:
        """The instrument with those settings filled in that it takes from the whole prompt set.

        Called once before any work, with every prompt that is to be measured; what is settled stays
        as it is when it is called again with some of them. By default there is nothing to settle.
        """
        return self

    def prepare(self, model: Model) -> None:  # noqa: B027 - most instruments have nothing to refuse
        """Refuse, by name, a model or a setting that cannot be measured rightly."""

    def accept(self, prompt: EncodedPrompt) -> None:  # noqa: B027 - most take every prompt
        """Refuse, by name, a prompt that cannot be measured rightly; before any work."""

    def remarks(self, model: Model) -> Sequence[str]:
        """What a result must say of how far its numbers can be trusted on this model."""
        return ()

    def remarks_of(self, prompts: Sequence[EncodedPrompt]) -> Sequence[str]:
        """What a result must say of the prompts that it was measured on."""
        return ()

    @abstractmethod
    def coords(self, model: Model) -> Mapping[str, Sequence[Any]]:
        """Coordinates of every axis but place and prompt."""

    @classmethod
    def rows(cls, data: xr.Dataset) -> Iterator[dict[str, Any]]:
        """Tidy rows of a result; by default one a cell (see `workbench.tidy`)."""
        from workbench.tidy import rows

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
        """The figure that notebook, report and app draw; by default the panels side by side.

        Args:
            data: a result's dataset.
            theme: "light" or "dark".
            prompt: id of the prompt; the first one where None.
            selected: the (layer, position) to mark.
            options: those of the instrument's own figure; there are none here.
        """
        from workbench.figures import layer_panels, themed

        layer, position = (None, None) if selected is None else selected
        shown = cls.panels(data, prompt=prompt, position=position)
        return layer_panels(
            {cls.title: shown}, themed(theme), layer=layer, position=position, **options
        )

    @classmethod
    def panels(
        cls,
        data: xr.Dataset,
        *,
        prompt: str | int | None = None,
        position: int | None = None,
        site: str | None = None,
    ) -> Sequence[Panel]:
        """What the layer axis shows of one place: panels whose vertical axis is the layer.

        By default a panel of lines for each unit. Twins and controls belong into the panel of what
        they are held against, as lines with `control=True`.

        Args:
            data: a result's dataset.
            prompt, position, site: the selection; the first prompt, its last position that was read,
                and the first site where they are None or are not in the result.
        """
        from workbench.figures.generic import at_place, generic_panels

        return generic_panels(at_place(data, prompt, position, site))

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
        """What is known of one cell, as (name, value with its unit); arguments as `panels`."""
        from workbench.figures.generic import at_place, facts

        return facts(at_place(data, prompt, position, site), layer)

    @classmethod
    def section(cls, rows: pl.LazyFrame, data: xr.Dataset | None = None) -> Section:
        """The instrument's part of a report.

        Args:
            rows: its tidy rows over all prompts, lazily.
            data: the finished dataset of a set-level instrument; None for the others.
        """
        from workbench.report.sections import generic_section

        return generic_section(cls, rows, data)


class Reading(Instrument):
    """Fed by the common pass: reads sites, returns small named tensors, on the device."""

    @abstractmethod
    def reads(self, model: Model) -> Read:
        """The sites and positions it needs."""

    @abstractmethod
    def measure(self, captures: Captures) -> Measured:
        """What it makes of one batch."""

    def measure_beside(self, captures: Captures, model: Model) -> Measured:
        """What it makes of one batch where the model is at hand; by default `measure`'s.

        For controls that need passes of their own (an untrained twin, other tokens) beside the
        common one, whose captures are given.
        """
        return self.measure(captures)

    def block_tokens(self, model: Model, prompts: Sequence[EncodedPrompt]) -> int:
        """How many tokens pass through a block in passes of its own, for a plan."""
        return 0


class Driving(Instrument):
    """Runs the model itself."""

    @abstractmethod
    def drive(self, model: Model, batch: Batch) -> tuple[Places, Measured]:
        """What it makes of one batch, and the places of its axis "place"."""

    def block_tokens(self, model: Model, prompts: Sequence[EncodedPrompt]) -> int | None:
        """How many tokens will pass through a block, for a plan; None where it is not counted."""
        return None

    def drive_paced(
        self, model: Model, batch: Batch, pace: Callable[[float], None]
    ) -> tuple[Places, Measured]:
        """As `drive`, for those whose batches take long: they say how far they are.

        Args:
            pace: to be called now and then with the share of the batch that is done, 0 to 1; raises
                `Cancelled` where the run was cancelled.
        """
        return self.drive(model, batch)


class Paced(Driving):
    """A driving instrument that always says how far it is within a batch."""

    def drive(self, model: Model, batch: Batch) -> tuple[Places, Measured]:
        """As `drive_paced`, with nobody to tell."""
        return self.drive_paced(model, batch, lambda _: None)

    @abstractmethod
    def drive_paced(
        self, model: Model, batch: Batch, pace: Callable[[float], None]
    ) -> tuple[Places, Measured]:
        """See `Driving.drive_paced`."""


State = Mapping[str, Tensor]
"""What a set-level instrument knows so far: named tensors, which can be stored with a shard."""


class SetLevel(Instrument):
    """Keeps a state over the prompt set; states of shards merge."""

    @abstractmethod
    def reads(self, model: Model) -> Read:
        """The sites and positions it needs."""

    @abstractmethod
    def start(self, model: Model) -> State:
        """The state before the first batch."""

    @abstractmethod
    def update(self, state: State, captures: Captures) -> State:
        """The state after one more batch; the one given stays as it is."""

    def update_beside(self, state: State, captures: Captures, model: Model) -> State:
        """The state after one more batch where the model is at hand; by default `update`'s.

        For controls that need passes of their own beside the common one, whose captures are given.
        """
        return self.update(state, captures)

    def block_tokens_beside(self, model: Model, prompts: Sequence[EncodedPrompt]) -> int:
        """How many tokens `update_beside` sends through a block, for a plan."""
        return 0

    @abstractmethod
    def merge(self, left: State, right: State) -> State:
        """The state of two shards together."""

    @abstractmethod
    def finish(self, state: State) -> Measured:
        """The result; its variables have no axis place or prompt."""

    def conclude(self, state: State, model: Model) -> Measured:
        """The result where the model is at hand, with what its weights say; by default `finish`'s."""
        return self.finish(state)

    def conclude_paced(self, state: State, model: Model, pace: Callable[[float], None]) -> Measured:
        """As `conclude`, for those that run the model once more: they say how far they are.

        Args:
            pace: to be called now and then with the share that is done, 0 to 1; raises `Cancelled`
                where the run was cancelled.
        """
        return self.conclude(state, model)

    def block_tokens(self, model: Model, prompts: Sequence[EncodedPrompt]) -> int:
        """How many tokens `conclude` sends through a block, beside the common pass, for a plan."""
        return 0


def names() -> list[str]:
    """Names of the installed instruments."""
    return sorted({entry.name for entry in entry_points(group=GROUP)})


def find(name: str) -> type[Instrument]:
    """The installed instrument called `name`.

    Raises:
        SettingError: none is called so.
    """
    for entry in entry_points(group=GROUP, name=name):
        found: type[Instrument] = entry.load()
        return found
    raise SettingError(f"unknown instrument {name!r}: expected one of {', '.join(names())}")
