"""`workbench app`: which models the page offers, and the server that it runs in."""

from __future__ import annotations

import functools
import os
import secrets
import sys
import webbrowser
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from workbench.atlas import MODELS
from workbench.errors import ModelError, SettingError
from workbench.jobs import Desk, ModelSpec, default_home

__all__ = ["launch", "offered"]


def launch(
    *,
    models: Mapping[str, ModelSpec],
    home: Path | None,
    lenses: Path | None,
    devices: Sequence[str],
    host: str,
    port: int,
    browser: bool,
) -> None:
    """Serve the app until interrupted, with the fitted lenses of the folder `lenses` on offer.

    Another host than this machine's own gets a token, which is part of the printed address.
    """
    from app.security import LOOPBACK
    from app.server import create_app, serve

    token = None if host in LOOPBACK else secrets.token_urlsafe(24)
    ready = functools.partial(_announce, browser=browser)
    first = next(iter(models))
    if lenses is not None and not lenses.is_dir():
        raise SettingError(f"--lens-root {lenses} is no folder")
    folder, threads = home or default_home(), max(1, (os.cpu_count() or 2) - 1)  # one for the page
    with Desk(folder, models, devices=devices or None, preload=first, threads=threads) as desk:
        try:
            serve(create_app(desk, lenses=lenses), host, port, token, ready=ready)
        except KeyboardInterrupt:
            typer.echo("stopped", err=True)


def offered(models: Sequence[str], root: Path | None, **options: Any) -> dict[str, ModelSpec]:
    """Models by the name that the page shows: those asked for, those under `root`, the bundled.

    `options` are those of every ModelSpec.

    Raises:
        ModelError: `root` is no folder, a folder in it leads out of it, or two models would have
            the same name.
    """
    names = {_label(name): name for name in models}
    if len(names) < len(models):
        raise ModelError(
            f"two of the models {', '.join(models)} have the same name: rename a folder"
        )
    for folder in _folders(root):
        names.setdefault(folder.name, str(folder))
    for bundled in MODELS:
        names.setdefault(bundled, bundled)
    return {label: ModelSpec(name, **options) for label, name in names.items()}


def _label(name: str) -> str:
    return Path(name).name if Path(name).is_dir() else name


def _folders(root: Path | None) -> list[Path]:
    """The model folders in `root`."""
    if root is None:
        return []
    if not root.is_dir():
        raise ModelError(f"--model-root {root} is no folder")
    found = sorted(path.parent for path in root.glob("*/config.json"))
    for path in [path for folder in found for path in (folder, *sorted(folder.iterdir()))]:
        if not path.resolve().is_relative_to(root.resolve()):
            raise ModelError(
                f"{path} leads out of --model-root to {path.resolve()}: name its folder with --model"
            )
    return found


def _announce(address: str, *, browser: bool) -> None:
    typer.echo(f"The workbench is at {address} (Ctrl+C stops it)")
    if browser and _has_screen():
        webbrowser.open(address)


def _has_screen() -> bool:
    """Without one, `webbrowser` would fill the terminal with a text browser."""
    desktop = sys.platform in ("darwin", "win32")
    return desktop or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
