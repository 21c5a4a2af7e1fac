"""What a report's manifest says of the run."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from workbench.assembly import PACKAGES
from workbench.instrument import Instrument
from workbench.models.protocol import Model
from workbench.report.reading import PromptSource

__all__ = ["description", "recorded"]

FORMAT = 1
# Numbers on another device, or of the same weights under another name, differ by rounding at most.
NOT_COMPARED = ("name", "revision", "device", "attention", "refused")


def description(
    model: Model, source: PromptSource, instruments: Sequence[Instrument], shard_size: int
) -> dict[str, Any]:
    """What must be equal for all who write into one folder."""
    compared = {k: v for k, v in model.provenance().items() if k not in NOT_COMPARED}
    settings = {instrument.name: instrument.settings() for instrument in instruments}
    content = {
        "format": FORMAT,
        "model": compared,
        "instruments": settings,
        "prompts": {"hash": source.hash, "count": source.count},
        "shard_size": shard_size,
    }
    plain: dict[str, Any] = json.loads(json.dumps(content, default=str))
    return plain


def recorded(model: Model, source: PromptSource) -> dict[str, Any]:
    """What is kept of the run that made the folder."""
    provenance = model.provenance()
    return {
        "model": {key: provenance.get(key) for key in NOT_COMPARED},
        "prompts": {"name": source.name, "rejected": len(source.rejected)},
        "versions": {name: version(name) for name in PACKAGES}
        | {"python": platform.python_version()},
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
    }
