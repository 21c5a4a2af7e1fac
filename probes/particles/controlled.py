"""What instruments of particles share: which tokens count, what is taken off, and the controls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import ClassVar, Self

from probes.particles.controls import LARGEST, few_twins, reasons_without
from probes.particles.corpus import BUNDLED, Corpus, LayerMeans
from probes.particles.measured import How
from probes.particles.states import SINKS, Drop
from probes.particles.views import Views
from workbench.errors import PromptError, SettingError, UnsupportedError
from workbench.instrument import Instrument
from workbench.models.captures import Read
from workbench.models.positions import Positions, checked_positions, resolve_positions
from workbench.models.protocol import Model
from workbench.models.tokens import EncodedPrompt
from workbench.prompts import Prompt
from workbench.store.activations import Store

__all__ = ["Controlled"]

SEEDS = 2**32  # as scikit-learn takes them
CHOICES = ("raw", "centred", "random", "shuffled")


@dataclass(frozen=True)
class Controlled(Instrument):
    """An instrument that looks at states raw and centred, beside untrained twins and shuffled tokens.

    Attributes:
        drop: "default" leaves out special tokens that open a prompt, and sinks; "none" leaves out none.
        corpus: a prompt file whose mean is taken off; bundled sentences where empty.
        views: some of raw, centred, random (twins) and shuffled; all that can be had where empty.
        draws: how many twins, and how many shufflings of each prompt.
        seed: of the first twin and shuffling; below 2^32.
        positions: which tokens are particles.
    """

    drop: Drop = "default"
    corpus: str = BUNDLED
    views: str | Sequence[str] = ()
    draws: int = 3
    seed: int = 0
    positions: Positions = "all"

    costly: ClassVar[bool] = True
    long_targets: ClassVar[bool] = True
    files: ClassVar[tuple[str, ...]] = ("corpus",)
    prompt_files: ClassVar[tuple[str, ...]] = ("corpus",)
    _found: ClassVar[Views | None] = None  # an instance's own once it is settled

    def __post_init__(self) -> None:
        if self.drop is None:  # as settings read "none" from a command line
            object.__setattr__(self, "drop", "none")
        if self.views is None or not isinstance(self.corpus, str):
            raise SettingError(
                f"{self.name}: views and corpus are left empty for their defaults, not none"
            )
        views = (self.views,) if isinstance(self.views, str) else tuple(self.views)
        object.__setattr__(self, "views", tuple(view for view in views if view))
        object.__setattr__(self, "positions", checked_positions(self.positions))
        unknown = [view for view in self.views if view not in CHOICES]
        if unknown:
            raise SettingError(
                f"{self.name}: views {unknown}: expected some of {', '.join(CHOICES)}"
            )
        if self.drop not in SINKS:
            raise SettingError(f"{self.name}: drop is {self.drop!r}: expected none or default")
        for name, least in (("draws", 1), ("seed", 0)):
            value = getattr(self, name)
            if type(value) is not int or not least <= value < SEEDS:
                raise SettingError(
                    f"{self.name}: {name} is {value!r}: expected a whole number, at least {least} and "
                    "below 2^32"
                )

    @property
    def _settled(self) -> Views:
        if self._found is None:
            raise SettingError(
                f"{self.name}: not settled on a model: expected settled(model, prompts)"
            )
        return self._found

    def _how(self, model: Model) -> How:
        """How states are measured."""
        return How(model.tokens, self.drop)

    def settled(self, model: Model, prompts: Iterable[Prompt]) -> Self:
        """With the views that can be had of the model, and a corpus that holds none of the prompts.

        Raises:
            UnsupportedError: a model of two stacks, or a view that is asked for and cannot be had.
            SettingError, PromptError: a corpus that is too short, is missing, or is measured itself.
        """
        if self._found is not None:
            if self._found.means is not None:
                self._found.means.forget()
            return self
        made = copy(self)
        object.__setattr__(made, "_found", self._views(model))
        if made._settled.means is not None:
            made._settled.means.corpus.require_held_out(prompts, self.name)
        return made

    def _views(self, model: Model) -> Views:
        if not isinstance(model, Store) and len(model.stacks) > 1:
            raise UnsupportedError(
                f"{self.name}: the decoder of {model.name} reads its start token alone: expected a model "
                "of one stack"
            )
        lacking = self._lacking(model)
        wanted = [view for view in self.views or CHOICES if view not in lacking]
        means = LayerMeans(Corpus.read(self.corpus), self.drop) if "centred" in wanted else None
        twins = self.draws if self.views else self._twins(model, wanted)
        return Views(
            how=self._how(model),
            raw="raw" in wanted or means is None,
            means=means,
            twins=twins if "random" in wanted else 0,
            shuffles=self.draws if "shuffled" in wanted else 0,
            seed=self.seed,
            positions=self.positions,
        )

    def _lacking(self, model: Model) -> Mapping[str, str]:
        """The views that are left out, and why.

        Raises:
            UnsupportedError: one of them is asked for.
        """
        reasons = reasons_without(model, self.seed)
        for view in self.views:
            if view in reasons:
                raise UnsupportedError(f"{self.name}: no view {view!r}: {reasons[view]}")
        return reasons

    def _twins(self, model: Model, wanted: Sequence[str]) -> int:
        return few_twins(model, self.draws) if "random" in wanted else 0

    def accept(self, prompt: EncodedPrompt) -> None:
        """Refuse a prompt of which no token is read."""
        if not resolve_positions(self.positions, prompt):
            raise PromptError(
                f"{self.name}: positions {self.positions!r} select no token of {prompt.text[:40]!r}"
            )

    def remarks(self, model: Model) -> Sequence[str]:
        """What was taken off, which controls there are and which there are not."""
        lacking = self._lacking(model)
        said = [f"no view {view}: {why}" for view, why in lacking.items()]
        found = self._found or self._views(model)
        if found.means is not None:
            said.append(found.means.said(model))
        if not self.views and "random" not in lacking and found.twins < self.draws:
            said.append(
                f"{found.twins or 'no'} of {self.draws} untrained twins: all together they may hold "
                f"{LARGEST:,} parameters, and one of {model.name} holds {model.n_parameters:,}; name "
                "random among views for all of them"
            )
        return said

    def reads(self, model: Model) -> Read:
        """The state after every block, and the embedding."""
        return Read("resid_post", self.positions)

    def _controls(self, model: Model, prompts: Sequence[EncodedPrompt]) -> int:
        """Block-tokens of twins and shufflings; the pass over the corpus, which is kept, is not counted."""
        found = self._settled
        return (found.twins + found.shuffles) * sum(map(len, prompts)) * model.n_layers
