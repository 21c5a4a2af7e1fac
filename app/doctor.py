"""`workbench doctor`: what is installed, what this machine has, what a model is refused."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable
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


def examine(model: wb.TorchModel, say: Say) -> bool:
    """Print each load-time identity of `model` with its error; False where one fails."""
    from workbench.models.checks import check

    say(repr(model))
    checks = check(model)
    for result in checks:
        verdict = "holds" if result.holds else "FAILS"
        say(
            f"{verdict}: {result.identity} (error {result.error:.2g}, tolerance {result.tolerance:.2g})"
        )
    return all(result.holds for result in checks)
