"""The rooms import in one direction only, export what they say, and start light."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("workbench", "lenses", "probes", "app")
ALLOWED = {
    "workbench": {"workbench"},
    "lenses": {"workbench", "lenses"},
    "probes": {"workbench", "probes"},
    "app": set(ROOMS),
}
APP_ONLY = {"dash", "typer", "flask", "werkzeug"}


def imported(path: Path) -> set[str]:
    """Top-level names that a file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add((node.module or "").split(".")[0])
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_import_direction(room: str) -> None:
    for path in (ROOT / room).rglob("*.py"):
        names = imported(path)
        assert names & set(ROOMS) <= ALLOWED[room], path
        assert room == "app" or not names & APP_ONLY, path
        assert "pickle" not in names, path


@pytest.mark.parametrize("room", ROOMS)
def test_every_exported_name_exists_and_is_sorted(room: str) -> None:
    module = importlib.import_module(room)
    exported = getattr(module, "__all__", [])
    assert all(hasattr(module, name) for name in exported)
    assert list(exported) == sorted(exported)


def test_public_names() -> None:
    """What other programs may rely on: a name that leaves this list is a breaking change."""
    import lenses
    import probes
    import workbench as wb

    assert lenses.__all__ == [
        "Attention",
        "BackwardLens",
        "Corpus",
        "DirectAttribution",
        "EditEffect",
        "GradientStep",
        "ImprintShift",
        "InputAttribution",
        "JacobianFit",
        "JacobianLens",
        "LogitLens",
        "NeuronView",
        "Translator",
        "TunedFit",
        "TunedLens",
        "WeightEdit",
        "counterfactuals",
        "load_lens",
        "side_by_side",
    ]
    assert probes.__all__ == [
        "Ablate",
        "AttentionEntropy",
        "AttributionPatch",
        "CausalTrace",
        "EdgeAttribution",
        "Interchange",
        "LayerFlow",
        "Particles",
        "Patch",
        "PathPatch",
        "ProbeAblation",
        "SpanTrace",
        "SparseAutoencoder",
        "SparseAutoencoderFit",
        "SparseProbe",
        "Spins",
        "Steering",
        "Superposition",
        "TokenGeometry",
    ]
    relied_on = {
        "load",
        "measure",
        "plan",
        "Prompt",
        "PromptSet",
        "Result",
        "Edit",
        "WorkbenchError",
    }
    assert relied_on <= set(wb.__all__)


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        (
            "workbench",
            {"transformer_lens", "nnsight", "dash", "plotly", "transformers", "sklearn", "xarray"},
        ),
        ("lenses", {"transformer_lens", "nnsight", "dash", "plotly", "transformers"}),
        ("app.cli", {"transformer_lens", "nnsight", "dash", "plotly", "transformers"}),
    ],
)
def test_heavy_libraries_are_imported_only_when_used(module: str, heavy: set[str]) -> None:
    code = f"import {module}, sys; print(*sys.modules)"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert not heavy & set(out.stdout.split())
