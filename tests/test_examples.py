"""The examples run as they are, offline."""

import re
import runpy
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from workbench.atlas.facts import answers

EXAMPLES = Path(__file__).parent.parent / "examples"
# What a notebook has to have said, besides running: by its name, patterns of its printed text.
SAID = {
    "particles": (
        r"time   20: mean cosine \+0\.200\d",  # from +0.232, while the energy rises
        r"At most \d% apart",  # the crossover simulated and by the closed form
        r"Atlas: the theory does not fit: .*the mean cosine falls",
        r"Its twins: the theory \w+",
        r"Mean cosine, raw: above all draws of untrained twins at .*; below all draws",
        r"Mean cosine, centred: .*below all draws of untrained twins at layers 1 to 6",
        r"components at cosine > \.95, centred: not told apart 0, 1, 2, 3, 4, 5, 6\n",
        r"Atlas, raw: mean cosine\n +rises .*\n +falls from layer 1 to 6",
        r"twins, raw: mean cosine\n +rises .*\n +rises from layer 1 to 6",
        r"Entropy of attention, nat: below its twin's",
    )
}


def test_the_readme_runs_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = (EXAMPLES.parent / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    assert len(blocks) == 7
    monkeypatch.chdir(tmp_path)  # it saves a file
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block, names)
    logits = names["model"].capture(names["prompt"], ["logits"])["logits", 6]
    assert names["again"]["logits", 6].equal(logits)
    assert names["rome"].rows()[-1]["top"][0][0] == " Rome"


def test_script(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLES / "logit_lens.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert "layer 6: top ' Paris'" in printed
    assert "rank of ' Paris'     1" in printed


def test_attribution(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLES / "attribution.py"), run_name="__main__")
    printed = capsys.readouterr().out
    whole = re.search(r"' Rome': \+([\d.]+)", printed)
    heads = re.findall(r"head \d writes \+([\d.]+), \+([\d.]+) of it from ' Tower'", printed)
    assert whole is not None
    assert float(whole[1]) > 5
    assert len(heads) >= 3


def test_patching(capsys: pytest.CaptureFixture[str]) -> None:
    """One head of the first block tells who gives; a later one takes it up as its value."""
    runpy.run_path(str(EXAMPLES / "patching.py"), run_name="__main__")
    printed = capsys.readouterr().out
    total = re.search(r"total effect \+([\d.]+) logit", printed)
    first = re.search(r"layer 1 head 3: -([\d.]+) when it is as in the other run", printed)
    fed = re.search(r"v of layer 4 head 1: most from layer 1 head 3, -([\d.]+)", printed)
    assert total is not None
    assert first is not None
    assert fed is not None
    assert float(first[1]) > 0.9 * float(total[1])
    assert float(fed[1]) > 2


def test_lenses_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # it saves files
    runpy.run_path(str(EXAMPLES / "tuned_lens.py"), run_name="__main__")
    printed = capsys.readouterr().out
    tuned = printed.partition("<Jacobian lens")[0]
    found = re.findall(r"layer \d: logit lens +([\d.]+), this one +([\d.]+)", tuned)
    assert len(found) == 6
    assert all(float(after) < float(before) for before, after in found)
    ranks = re.findall(r"rank of ' Paris' by layer: \[.* (\d+)\]", printed)
    assert ranks == ["1", "1", "1"]  # every lens leaves the last layer alone
    assert "Plotly" in (tmp_path / "lenses.html").read_text(encoding="utf-8")


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
    printed = "".join(output.text for output in shown if output.output_type == "stream")
    for pattern in SAID.get(path.stem, ()):
        assert re.search(pattern, printed), pattern


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


def test_the_backward_lens_says_what_is_the_models_own(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLES / "backward_lens.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert "layer 6 ff1: imprint  Paris" in printed
    numbers = {
        int(layer): [int(rank) for rank in ranks.split()]
        for layer, ranks in re.findall(r"^ {4}(\d)((?: +\d+)+) *$", printed, flags=re.MULTILINE)
    }
    assert sorted(numbers) == [1, 2, 3, 4, 5, 6]
    assert all(max(ranks[:3]) <= 2 for ranks in numbers.values())
    for layer in (4, 5):
        own, *controls = numbers[layer][3:]
        assert own < min(controls) / 2


def test_edits_hold_beside_a_random_direction(capsys: pytest.CaptureFixture[str]) -> None:
    names = runpy.run_path(str(EXAMPLES / "editing.py"))
    names["main"](3)
    printed = capsys.readouterr().out
    before, edited, undone = (
        re.findall(rf"^{name}: (.*)$", printed, flags=re.MULTILINE)
        for name in ("before", "edited", "undone")
    )
    assert before == undone != edited
    rows = re.findall(r"layer (\d) +(\w+) +(\d+) \(", printed)
    assert len(rows) == 2 * 6 * 3  # etas, layers, methods
    held = {
        method: sum(int(share) for _, name, share in rows if name == method)
        for method in ("imprint_shift", "gradient", "random")
    }
    assert held["random"] < min(held["imprint_shift"], held["gradient"])


def test_neurons_have_tokens_and_contexts(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLES / "neurons.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert len(re.findall(r"^layer 5, neuron \d+: ", printed, flags=re.MULTILINE)) == 3
    assert printed.count("promoted") == printed.count("suppressed") == 3
    assert len(re.findall(r"^ +-?[\d.]+ at '", printed, flags=re.MULTILINE)) == 9


def test_interchanges_stand_above_their_controls(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLES / "interchange.py"), run_name="__main__")
    printed = capsys.readouterr().out
    found = re.findall(r"layer 3 (\w+) +(\d+)% \((\d+)% to (\d+)%\)", printed)
    for run in (found[:7], found[7:]):
        ends = {control: (int(low), int(high)) for control, _, low, high in run}
        for control in ("random", "arbitrary", "unchanged"):
            assert ends["subspace"][0] > ends[control][1]


def test_circuits_hold_beside_random_edges(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLES / "circuits.py"), run_name="__main__")
    printed = capsys.readouterr().out
    ranks = re.findall(r" (?:state|MLP|attention|heads) ([\d.]+)", printed)
    assert len(ranks) == 8
    assert all(float(rank) > 0.7 for rank in ranks)
    kept = {
        int(size): (float(own), float(random))
        for size, own, random in re.findall(
            r"^ +(\d+) of \d+ edges keep (\S+), at random (\S+)$", printed, re.M
        )
    }
    assert kept[0] == (0, 0)
    assert kept[1108] == (1, 1)
    assert kept[100][0] > 0.6 > 10 * kept[100][1]


def test_layers_are_no_fine_steps_and_the_first_blocks_order_matters(
    capsys: pytest.CaptureFixture[str],
) -> None:
    runpy.run_path(str(EXAMPLES / "layer_flow.py"))["main"](4)
    printed = capsys.readouterr().out
    steps = re.findall(
        r"^(Atlas|twin) layer (\d): step +\S+ +turn (\S+) +from its flow (\S+)", printed, re.M
    )
    assert len(steps) == 2 * 6
    turns = {(who, int(layer)): float(turn) for who, layer, turn, _ in steps}
    assert all(turns["Atlas", layer] > turns["twin", layer] + 0.1 for layer in (3, 4, 5, 6))
    assert all(
        float(defect) > 0.1 for *_, defect in steps
    )  # a flow's fine steps would have about 0
    orders = re.findall(r"block 1 (\S+) \(random push \S+\), block 4 (\S+)$", printed, re.M)
    assert len(orders) == 5
    assert all(float(first) > 0.5 > 5 * abs(float(above)) for first, above in orders)


def test_ablation_compares_memorised_with_held_out_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # it saves a file
    runpy.run_path(str(EXAMPLES / "ablation.py"))["main"](8)
    printed = capsys.readouterr().out
    number = r"([+-][\d.]+)"
    line = rf"layer (\d): held out {number}  memorised {number}  difference {number} .*control {number}"
    found = [tuple(map(float, one)) for one in re.findall(line, printed)]
    assert len(found) == 2 * 2 * 6  # parts, effects, layers
    for _, held_out, memorised, difference, _ in found:
        assert difference == pytest.approx(
            memorised - held_out, abs=0.0016
        )  # three digits are printed
    layer, *effects, _, control = found[12]  # attention's on the loss
    assert layer == 1
    assert min(effects) > 2 * control > 0
    assert "Plotly" in (tmp_path / "short_circuits.html").read_text(encoding="utf-8")


def test_sparse_probes_stand_above_their_controls(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLES / "sparse_probing.py"), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()[1:7]
    for line in lines:
        assert float(line.split(")")[1].split()[0]) <= 0.05, line
    assert float(lines[0].split()[3]) > 0.9  # one neuron for the language relation
    assert (tmp_path / "sparse_probing.html").is_file()


def test_particles_are_held_against_their_controls(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLES / "particles.py"))["main"](12)
    printed = capsys.readouterr().out
    cosines = {
        (view, int(layer)): float(value)
        for view, layer, value in re.findall(r"^(\w+) +(\d) +(-?[\d.]+) ", printed, re.MULTILINE)
    }
    assert len(cosines) == 4 * 7
    assert cosines["raw", 1] > 0.8 > 0.2 > cosines["raw", 6]  # Atlas rises, then falls
    assert re.search(
        r"^Mean cosine, centred: .*below all draws of untrained twins at", printed, re.M
    )
    assert (tmp_path / "particles.html").is_file()


def test_attention_sharpens_and_tokens_part(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)  # it saves files
    runpy.run_path(str(EXAMPLES / "attention_entropy.py"), run_name="__main__")
    printed = capsys.readouterr().out
    number = r"([\d.-]+)"
    line = (
        rf"entropy (\d+)% of ln n, slope {number} \({number} to {number}\), untrained twin {number}"
    )
    found = [tuple(map(float, one)) for one in re.findall(line, printed)]
    assert len(found) == 6
    for share, _, _, high, twin in found:
        assert share < 80
        assert high < twin  # every layer is further from uniform than random weights
    states = re.findall(r"raw ([\d.-]+), centred ([\d.-]+); untrained twin ([\d.-]+)", printed)
    raw, _, twin_raw = zip(*(map(float, one) for one in states), strict=True)
    assert raw[1] > raw[-1] + 0.5  # Atlas parts its tokens again ...
    assert list(twin_raw) == sorted(twin_raw)  # ... which random weights alone never do
    assert "addFrames" in (tmp_path / "token_geometry.html").read_text(encoding="utf-8")


def test_particles_meet_by_the_closed_form_and_atlas_does_not(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLES / "dynamics.py"))["main"](12)
    printed = capsys.readouterr().out
    pairs = re.findall(r"beta [\d.]+: +([\d.]+) +([\d.]+)", printed)
    assert len(pairs) == 4
    for simulated, closed in pairs:
        assert float(simulated) == pytest.approx(float(closed), rel=0.15)
    assert "The theory does not fit" in printed
    assert "the mean cosine falls" in printed
    assert (tmp_path / "crossover.html").is_file()


def test_an_sae_stands_above_its_controls_and_beside_neurons(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLES / "sparse_autoencoder.py"), run_name="__main__")
    printed = capsys.readouterr().out
    explained, pca, random = (
        float(re.search(rf"{name} +(\d\.\d+)", printed)[1])  # type: ignore[index]
        for name in ("variance explained", r"PCA of rank 8", "random dictionary")
    )
    assert explained > pca + 0.2 > random
    units = re.findall(r"^\S+ +(mlp_act|sae:resid_post) +[18] ", printed, re.MULTILINE)
    assert sorted(units) == ["mlp_act"] * 4 + ["sae:resid_post"] * 4
    assert (tmp_path / "atlas_sae" / "cfg.json").is_file()
    assert "Plotly" in (tmp_path / "sparse_autoencoder.html").read_text(encoding="utf-8")


def test_steering_changes_the_kind_of_answer_and_a_random_direction_does_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    runpy.run_path(str(EXAMPLES / "steering.py"), run_name="__main__")
    printed = capsys.readouterr().out
    clean, steered = re.findall(r"^The capital of France is (\w+); steered: (\w+)$", printed, re.M)[
        0
    ]
    assert clean == "Paris"
    assert steered in answers("language")
    low = float(re.findall(r"strength 2: steered \S+ \(([\d.]+) to", printed)[0])
    random = float(
        re.findall(r"strength 2: random direction \S+ \([\d.]+ to ([\d.]+)\)", printed)[0]
    )
    assert random < 10 < 50 < low
    assert len(re.findall(r"^layer \d without the \d best", printed, re.M)) == 4
    assert len(re.findall(r"median weight norm", printed)) == 6
