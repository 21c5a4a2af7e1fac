"""`workbench app`: which models the page offers, and the server that it runs in."""

from __future__ import annotations

import functools
import os
import secrets
import sys
import webbrowser
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from workbench.atlas import MODELS
from workbench.errors import ModelError

if TYPE_CHECKING:
    import workbench as wb

__all__ = ["launch", "offered"]

Load = Callable[[str], "wb.TorchModel"]


def launch(
    *,
    models: Sequence[str],
    model_root: Path | None,
    host: str,
    port: int,
    browser: bool,
    load: Load,
) -> None:
    """Serve the app until interrupted.

    Another host than this machine's own gets a token, which is part of the printed address.
    """
    from app.security import LOOPBACK
    from app.server import create_app, serve

    app = create_app(offered(models, model_root, load))
    token = None if host in LOOPBACK else secrets.token_urlsafe(24)
    try:
        serve(app, host, port, token, ready=functools.partial(_announce, browser=browser))
    except KeyboardInterrupt:
        typer.echo("stopped", err=True)


def offered(
    models: Sequence[str], root: Path | None, load: Load
) -> Mapping[str, Callable[[], wb.TorchModel]]:
    """Loaders by the name that the page shows: those asked for, those under `root`, the bundled.

    Raises:
        ModelError: `root` is no folder, or two models would have the same name.
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
    return {label: functools.partial(load, name) for label, name in names.items()}


def _label(name: str) -> str:
    return Path(name).name if Path(name).is_dir() else name


def _folders(root: Path | None) -> list[Path]:
    if root is None:
        return []
    if not root.is_dir():
        raise ModelError(f"--model-root {root} is no folder")
    return sorted(path.parent for path in root.glob("*/config.json"))


def _announce(address: str, *, browser: bool) -> None:
    typer.echo(f"The workbench is at {address} (Ctrl+C stops it)")
    if browser and _has_screen():
        webbrowser.open(address)


def _has_screen() -> bool:
    """Without one, `webbrowser` would fill the terminal with a text browser."""
    desktop = sys.platform in ("darwin", "win32")
    return desktop or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
