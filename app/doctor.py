"""`workbench doctor`: what is installed, what this machine has, what holds on a model."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import workbench as wb

__all__ = ["diagnose", "examine"]

OURS = "mechanistic-interpretability-workbench"
PACKAGES = (
    "torch",
    "transformers",
    "transformer-lens",
    "nnsight",
    "plotly",
    "dash",
    "scikit-learn",
)
ROOMS = ("workbench", "lenses", "probes", "app")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")

Say = Callable[[str], None]


def diagnose(say: Say) -> bool:
    """Print versions, devices and browser; False where another package shadows one of ours."""
    import torch

    say(f"{OURS} {version(OURS)}, Python {platform.python_version()}")
    say(", ".join(f"{name} {_version(name)}" for name in PACKAGES))
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    say(f"CUDA devices: {', '.join(devices) or 'none'}; CPU threads: {torch.get_num_threads()}")
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    say(f"Chromium, for PNG, SVG and PDF: {browser or 'none found; HTML figures work without it'}")
    shadowed = shadows()
    for line in shadowed:
        say(line)
    return not shadowed


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def shadows() -> list[str]:
    """One line for each other distribution that installs one of our package names."""
    owners = packages_distributions()
    return [
        f"{room}: also installed by {other}: uninstall one of the two, or use a virtual environment"
        for room in ROOMS
        for other in sorted(set(owners.get(room, [])) - {OURS})
    ]


def examine(model: wb.Engine, engine: str, say: Say) -> bool:
    """Hold `model`, run by `engine`, against plain Hugging Face; False where something fails.

    Prints the measured errors by site and operation, and what is refused, by its message.

    Raises:
        UnsupportedError: no such engine.
    """
    from workbench.conformance import Answers, conform, probe_prompts
    from workbench.conformance.table import examined
    from workbench.models.engines import engine_class

    engine_class(engine, None)
    say(repr(model))
    prompts = probe_prompts(model.hf, model.tokenizer.all_special_ids)
    try:
        with model.lock:  # the adapter that is on, if any, is on in the oracle too
            answers = Answers(model.hf, prompts)
    except (LookupError, ValueError) as error:
        say(f"FAILS: its parts cannot be found to compare with Hugging Face's own: {error}")
        return False
    load = partial(_on, engine, model)
    family = model.anatomy.config.model_type
    cells = list(conform(model.hf, load, answers, engine=engine, family=family))
    say("\n".join(examined(cells)))
    return all(cell.verdict != "fails" for cell in cells)


def _on(engine: str, model: wb.Engine) -> wb.Engine:
    import workbench as wb

    if engine == model.engine:
        return model
    return wb.load(model.hf, model.tokenizer, engine=engine)
