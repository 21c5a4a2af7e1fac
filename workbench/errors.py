"""The errors a user meets. Each message is one line: the thing, what was expected, what to do."""

from __future__ import annotations

__all__ = [
    "Cancelled",
    "ModelError",
    "PromptError",
    "ResultError",
    "SettingError",
    "TargetError",
    "UnsupportedError",
    "WorkbenchError",
]


class WorkbenchError(Exception):
    """Base of every error that the workbench raises on purpose."""


class ModelError(WorkbenchError, ValueError):
    """A model cannot be loaded, or fails one of its load-time checks."""


class UnsupportedError(WorkbenchError, NotImplementedError):
    """A family, site or operation that cannot be measured rightly is refused by name."""


class PromptError(WorkbenchError, ValueError):
    """A prompt or a line of a prompt file cannot be used as it stands."""


class TargetError(WorkbenchError, ValueError):
    """A target or foil is not a token of this model, or is not one token where one is needed."""


class SettingError(WorkbenchError, ValueError):
    """A setting of an instrument or of a pass is out of its range."""


class ResultError(WorkbenchError, ValueError):
    """A stored result cannot be read, or does not hold what is asked of it."""


class Cancelled(WorkbenchError):
    """The caller cancelled a pass; no result was made."""
