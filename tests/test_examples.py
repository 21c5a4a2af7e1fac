"""The examples run as they are, offline."""

import re
import runpy
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_the_readme_runs_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = (EXAMPLES.parent / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    assert len(blocks) == 6
    monkeypatch.chdir(tmp_path)  # it saves a file
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block, names)
    logits = names["model"].capture(names["prompt"], ["logits"])["logits", 6]
    assert names["again"]["logits", 6].equal(logits)


def test_script(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLES / "logit_lens.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert "layer 6: top ' Paris'" in printed
    assert "rank of ' Paris'     1" in printed


def test_induction_heads_stand_far_above_chance(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLES / "attention.py"), run_name="__main__")
    printed = capsys.readouterr().out
    found = re.search(r"induction \(layer \d, head \d; chance (\S+)\): (\S+) \((\S+) to", printed)
    assert found is not None
    chance, _, low = map(float, found.groups())
    assert low > 5 * chance
    brought = re.findall(r"^'(.*)' +\S+ +(\S+)$", printed, flags=re.MULTILINE)
    assert max(brought, key=lambda pair: float(pair[1]))[0] == " Tower"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the notebook client's own libraries
@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebook(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook, timeout=120, resources={"metadata": {"path": str(EXAMPLES.parent)}}
    )
    client.execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [output for output in shown if output.output_type == "error"]
    assert any("application/vnd.plotly.v1+json" in output.get("data", {}) for output in shown)


# PEFT asks transformers for it under its old name
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_an_adapter_moves_one_fact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # it saves a file
    runpy.run_path(str(EXAMPLES / "adapter.py"), run_name="__main__")
    printed = capsys.readouterr().out
    last = re.findall(r"^atlas( \+ rome)? +layer 6: top '(.*)'$", printed, flags=re.MULTILINE)
    assert last == [("", " Paris"), (" + rome", " Rome")]
    first = re.findall(r"^atlas.* layer [012]: top (.*)$", printed, flags=re.MULTILINE)
    assert first[:3] == first[3:]  # they do not part before
    parted = re.search(r"They part at layer (\d)", printed)
    kept = re.search(r"(\d+)% of the other facts", printed)
    assert parted is not None
    assert kept is not None
    assert int(parted[1]) in (3, 4, 5)
    assert int(kept[1]) >= 90
    assert "Plotly" in (tmp_path / "adapter.html").read_text(encoding="utf-8")
