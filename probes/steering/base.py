"""What instruments share that go on from a probe's result: which one it is, and of what model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import ClassVar, Self

from probes.sparse.found import ProbeResult
from workbench.errors import SettingError, UnsupportedError
from workbench.instrument import Paced
from workbench.models.protocol import Model

__all__ = ["GoingOn"]


@dataclass(frozen=True)
class GoingOn(Paced):
    """A driving instrument that takes units or directions from what sparse probes have found.

    Attributes:
        probe: a file in which sparse_probe saved its result (.nc).
        feature: one of the result's features; may be left out where it has one.
    """

    probe: str = ""
    feature: str = ""

    long_targets: ClassVar[bool] = True
    costly: ClassVar[bool] = True
    needs_set: ClassVar[bool] = True
    files: ClassVar[tuple[str, ...]] = ("probe",)
    _result: ClassVar[ProbeResult | None] = None  # an instance's own

    def _gather(self, field: str) -> None:
        """A setting of one or several as a tuple."""
        given = getattr(self, field)
        several = tuple(given) if isinstance(given, Iterable) else (given,)
        object.__setattr__(self, field, several)

    def _require_whole(self, field: str) -> None:
        value = getattr(self, field)
        if type(value) is not int or value < 0:
            raise SettingError(
                f"{self.name}: {field} is {value!r}: expected a whole number from 0 on"
            )

    def of(self, result: ProbeResult) -> Self:
        """With a result that is at hand, in the place of a file."""
        made = copy(self)
        object.__setattr__(made, "_result", result)
        return made

    def _with_probe(self) -> Self:
        """With the result, from its file where none is at hand, and the feature's name.

        Raises:
            SettingError: no file is named, or no feature of several.
            ResultError: the file holds no such result.
        """
        result = self._read() if self._result is None else self._result
        return replace(self, feature=result.feature(self.feature)).of(result)

    def _read(self) -> ProbeResult:
        if not self.probe:
            raise SettingError(
                f"{self.name}: no probe: expected probe=FILE, which sparse_probe saved as .nc, or "
                ".of(result)"
            )
        found = ProbeResult.load(self.probe)
        assert isinstance(found, ProbeResult)
        return found

    @property
    def _found(self) -> ProbeResult:
        if self._result is None:
            raise SettingError(
                f"{self.name}: not settled on prompts: expected settled(model, prompts)"
            )
        return self._result

    def prepare(self, model: Model) -> None:
        """Refuse models that predict no next tokens."""
        if not model.causal or len(model.stacks) > 1:
            raise UnsupportedError(f"{self.name}: {model.name}: expected a decoder")

    def remarks(self, model: Model) -> Sequence[str]:
        """Whose probe it is, where it is of other weights than these."""
        own, of = model.provenance()["weights"], self._found.provenance["model"]
        if own == of["weights"]:
            return []
        return [
            f"The probe is of {of['name']} (weights {of['weights']}), not of these weights ({own})"
        ]
