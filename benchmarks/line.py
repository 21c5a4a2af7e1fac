"""One line of the table."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Line"]


@dataclass(frozen=True)
class Line:
    """What was measured against what it should be.

    Attributes:
        what: the quantity.
        value: the figure; a ratio where there is no unit.
        goal: the most it should be; None where there is no goal.
        detail: what else there is to say.
        unit: of the value and the goal.
    """

    what: str
    value: float
    goal: float | None
    detail: str
    unit: str = ""

    def __str__(self) -> str:
        return f"{self.value:8.3f} {self.unit:2} {self.what:75} {self._verdict():22} {self.detail}"

    def _verdict(self) -> str:
        if self.goal is None:
            return ""
        return f"goal <= {self.goal:g}: {'met' if self.value <= self.goal else 'MISSED'}"
