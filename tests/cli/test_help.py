"""The command line answers before anything heavy is imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"transformer_lens", "nnsight", "dash", "plotly", "transformers", "torch._dynamo"}


@pytest.mark.parametrize("command", [["--help"], ["doctor", "--help"], ["run", "--help"]])
def test_help_imports_no_library_of_an_engine(command: list[str]) -> None:
    code = f"from app.cli import cli; import sys; cli({command}, standalone_mode=False)"
    code += "; print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage" in done.stdout
    assert not HEAVY & set(done.stderr.split())
