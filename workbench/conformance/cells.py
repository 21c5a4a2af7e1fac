"""One cell of the conformance table: a measured error and what rounding allows, or a refusal."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from workbench.models.batch import Padding

__all__ = ["Cell", "Finding", "Verdict", "worst"]

Verdict = Literal["holds", "refused", "fails"]


@dataclass(frozen=True)
class Finding:
    """Largest absolute difference between two sides, and the largest that rounding explains."""

    error: float
    tolerance: float

    @property
    def holds(self) -> bool:
        """Whether the sides agree (an error that is not a number does not)."""
        return self.error <= self.tolerance

    @property
    def share(self) -> float:
        """The error as a share of its tolerance."""
        if self.error == 0:
            return 0.0
        return self.error / self.tolerance if self.tolerance else math.inf


def worst(findings: list[Finding]) -> Finding:
    """The finding that comes closest to its tolerance, or goes farthest beyond it."""
    failed = [finding for finding in findings if not finding.holds]
    return max(failed or findings, key=lambda finding: finding.share)


@dataclass(frozen=True)
class Cell:
    """What one operation gave on one site of one model.

    Attributes:
        engine, family, dtype: the model.
        site: a canonical site, or "model" where the operation is about the whole of it.
        operation: name of the operation.
        padding: side on which prompts of unequal length were padded; "none" where they were not.
        error, tolerance: as in `Finding`; None where there was no number.
        refusal: the message with which the workbench refused, by name.
        failure: the message of any other exception; never expected.
    """

    engine: str
    family: str
    site: str
    operation: str
    dtype: str
    padding: str
    error: float | None = None
    tolerance: float | None = None
    refusal: str | None = None
    failure: str | None = None

    @property
    def verdict(self) -> Verdict:
        """How it ended; a cell with neither a number nor a refusal fails."""
        if self.refusal is not None:
            return "refused"
        if self.failure is not None or self.error is None or self.tolerance is None:
            return "fails"
        return "holds" if Finding(self.error, self.tolerance).holds else "fails"

    @property
    def side(self) -> Padding:
        """The side to pad on; what is not padded can be said to be so on the right."""
        return "left" if self.padding == "left" else "right"

    def measured(self, finding: Finding) -> Cell:
        """The cell with its number; JSON has none for an infinite one, so that is a failure."""
        if not math.isfinite(finding.error):
            return replace(self, failure="the difference is not a finite number")
        return replace(self, error=finding.error, tolerance=finding.tolerance)

    def row(self) -> dict[str, Any]:
        """As one JSON object."""
        return asdict(self) | {"verdict": self.verdict}
