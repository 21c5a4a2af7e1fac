"""A package on a path of its own with its entry points, as an installer would leave it."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path

from workbench.instrument import GROUP


def install(project: Path, site: Path) -> Path:
    """Put the modules of `project` and its entry points into `site`, a folder for PYTHONPATH."""
    site.mkdir(parents=True, exist_ok=True)
    about = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for module in project.glob("*.py"):
        shutil.copy(module, site)
    info = site / f"{about['name'].replace('-', '_')}-{about['version']}.dist-info"
    info.mkdir()
    header = f"Metadata-Version: 2.1\nName: {about['name']}\nVersion: {about['version']}\n"
    (info / "METADATA").write_text(header, encoding="utf-8")
    points = about["entry-points"][GROUP].items()
    lines = [f"[{GROUP}]", *(f"{name} = {target}" for name, target in points)]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return site
