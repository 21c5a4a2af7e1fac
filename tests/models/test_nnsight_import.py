"""What importing nnsight does to a process, and what of it the workbench takes back."""

import subprocess
import sys
import textwrap

import pytest
import torch

import workbench as wb
from tests.test_structure import ROOT
from workbench.models.nnsight.contained import nnsight

STATE = """
import atexit, os, signal, sys, threading, warnings
import anyio, torch, transformers

def state():
    return {
        "arguments": (id(sys.argv), list(sys.argv)),
        "threads": {thread.name for thread in threading.enumerate()},
        "filters": list(warnings.filters),
        "exits": atexit._ncallbacks(),
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        "hooks": (sys.excepthook, sys.displayhook, sys.gettrace(), list(sys.meta_path)),
        "variables": dict(os.environ),
        "tensors": (torch.Tensor.backward, torch.Tensor.grad, torch.get_default_dtype()),
        "grad": torch.is_grad_enabled(),
    }
"""
LOAD = """
import workbench as wb
from tests.tiny import hf_model, tokenizer
hooked = wb.load(hf_model("gpt2"), tokenizer(), engine="nnsight")
"""


def said(code: str, *arguments: str) -> list[str]:
    """The lines that a new process prints."""
    program = [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *arguments]
    done = subprocess.run(program, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_nothing_of_the_process_changes() -> None:
    code = (
        STATE
        + LOAD.replace("nnsight", "torch")
        + "before = state()\nprint('nnsight' in sys.modules)\n"
        + LOAD  # its passes too must leave nothing
        + "hooked.grad('abc', lambda logits, _: logits.sum(), ['resid_post'])\n"
        + "after = state()\nprint([name for name in before if before[name] != after[name]])\n"
        + "import nnsight\nprint(hasattr(object(), 'save'), nnsight.CONFIG.APP.DEBUG)\n"
    )
    assert said(code, "-v", "--verbose") == ["False", "[]", "False False"]


def test_a_program_that_imported_nnsight_keeps_what_it_has() -> None:
    code = """
    import nnsight, torch
    backward = torch.Tensor.backward
    from workbench.models.nnsight.contained import nnsight as imported
    print(imported() is nnsight, nnsight.CONFIG.APP.DEBUG)
    print(hasattr(object(), "save"), torch.Tensor.backward is backward)
    """
    assert said(code, "-v") == ["True True", "True True"]


def test_an_nnsight_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise ImportError("no greenlet here")

    monkeypatch.delitem(sys.modules, "nnsight", raising=False)
    monkeypatch.setattr("workbench.models.nnsight.contained.import_module", fail)
    backward, arguments = torch.Tensor.backward, sys.argv
    with pytest.raises(wb.ModelError, match="no greenlet here.*install nnsight>=0.8.1,<0.9"):
        nnsight()
    assert torch.Tensor.backward is backward
    assert sys.argv is arguments
