"""Interchanges on Atlas: what they find, what stands beside it, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

import workbench as wb
from app.cli import cli
from probes import Interchange
from probes.interchange.subspaces import moved
from tests.tiny import model
from workbench.atlas import prompts_path
from workbench.passes import finished, gather


@pytest.fixture(scope="module")
def facts() -> wb.PromptSet:
    """All held-out prompts about continents: four answers."""
    known = wb.PromptSet.read(prompts_path("facts"))
    chosen = [i for i, p in enumerate(known) if p.extra["relation"] == "continent"]
    return known.subset(chosen)


@pytest.fixture(scope="module")
def atlas() -> wb.TorchModel:
    return wb.load()


@pytest.fixture(scope="module")
def result(atlas: wb.TorchModel, facts: wb.PromptSet) -> wb.Result:
    return Interchange(subspace="means", layers=[3, 6], pairs=64, draws=2)(atlas, facts)


def cell(result: wb.Result, name: str, control: str, layer: int) -> float:
    return float(result.data[name].sel(control=control, layer=layer))


def test_class_means_carry_the_answer_and_controls_do_not(result: wb.Result) -> None:
    assert int(result.data["dimensions"].sel(layer=3)) == 3  # four continents
    assert cell(result, "accuracy", "whole", 3) > 0.9
    assert cell(result, "accuracy", "subspace", 3) > 0.5
    for control in ("random", "arbitrary", "unchanged"):
        assert cell(result, "lead_low", control, 3) > 0
    assert cell(result, "top", "random", 3) < 0.2
    # Random weights answer by chance, whatever is put in.
    assert abs(cell(result, "score", "twin", 3) - cell(result, "score", "twin_unchanged", 3)) < 0.1


def test_a_subject_after_the_last_block_is_read_by_nobody(result: wb.Result) -> None:
    last = result.data["pair_score"].sel(layer=6)
    for control in ("subspace", "whole"):
        still = last.sel(control="unchanged").values
        # Restarted runs differ from whole ones by rounding in float32.
        np.testing.assert_allclose(last.sel(control=control), still, rtol=0, atol=1e-4)


def test_numbers_are_those_of_the_pairs(
    result: wb.Result, atlas: wb.TorchModel, facts: wb.PromptSet
) -> None:
    """The recorded pairs, run one by one, give the recorded scores; the split keeps groups apart."""
    from probes.interchange.state import key_of

    encoded = [atlas.encode(prompt) for prompt in facts]
    by_key = {key_of((p.ids, p.target)): p for p in encoded}
    data = result.data
    held = data["pair_held_out"].values == 1
    base, source = (
        [by_key[k] for k in data[f"pair_{who}"].values.tolist()] for who in ("base", "source")
    )
    groups = [
        {
            p.prompt.group
            for side in (base, source)
            for p, out in zip(side, held, strict=True)
            if out == on
        }
        for on in (True, False)
    ]
    assert not groups[0] & groups[1]
    assert int(data["groups"]) == len(groups[0])
    basis = torch.tensor(data["basis"].sel(layer=3).values)
    torch.testing.assert_close(basis.T @ basis, torch.eye(3), rtol=0, atol=1e-5)
    scores = data["pair_score"].sel(layer=3, control="subspace").values
    assert cell(result, "accuracy", "subspace", 3) == pytest.approx((scores[held] > 0).mean())
    assert int(data["n"]) == held.sum()
    for one, two, score in list(zip(base, source, scores, strict=True))[::4]:
        assert one.prompt.group != two.prompt.group
        assert one.target != two.target
        own, aside = (
            atlas.capture([p.prompt], [("resid_post", 3)], "last_subject")["resid_post", 3][0]
            for p in (one, two)
        )
        value = own + moved(own[None], aside[None], basis)[0]
        edit = wb.Edit.set(("resid_post", 3), value, "last_subject")
        found = atlas.intervene([one.prompt], [edit], positions="last")["logits", 6][0]
        difference = float(found[two.target] - found[one.target])
        assert score == pytest.approx(difference, abs=1e-3)


def test_any_order_batching_and_split_gives_the_same(
    result: wb.Result, atlas: wb.TorchModel, facts: wb.PromptSet
) -> None:
    kind = Interchange(subspace="means", layers=[3, 6], pairs=64, draws=2)
    order = np.random.default_rng(0).permutation(len(facts)).tolist()
    parts = [facts.subset(order[:90]), facts.subset(order[90:])]
    states = []
    for part, size in zip(parts, (7, 50), strict=True):
        gathered = gather(atlas, part, [kind], batch_size=size, padding="left")
        states.append(gathered[0].state)
    assert states[0] is not None
    assert states[1] is not None
    again = finished(kind, atlas, kind.merge(states[1], states[0]))
    for name in ("pair_base", "pair_source", "pair_held_out"):
        assert (again.data[name].values == result.data[name].values).all()
    for name in ("accuracy", "accuracy_low", "score", "lead_high"):
        np.testing.assert_allclose(again.data[name], result.data[name], rtol=0, atol=1e-4)


def test_a_rotation_is_fitted_and_held_out(atlas: wb.TorchModel, facts: wb.PromptSet) -> None:
    kind = Interchange(layers=3, k=16, pairs=96, draws=1)
    found = kind(atlas, facts)
    assert cell(found, "train_accuracy", "subspace", 3) > 0.8
    assert cell(found, "accuracy", "subspace", 3) > 0.7
    for control in ("random", "arbitrary"):
        assert cell(found, "lead_low", control, 3) > 0
    # What fits arbitrary answers on the pairs it has seen does not hold on others.
    assert cell(found, "accuracy", "arbitrary", 3) < cell(found, "train_accuracy", "arbitrary", 3)


REFUSED = [
    ({"subspace": "means", "k": 0}, "k is 0: expected a whole number, at least 1"),
    ({"subspace": "means", "k": 129}, "k is 129: resid_post has 128 dimensions"),
    ({"layers": 7}, "resid_post has no layer 7"),
    ({"layers": "3"}, "layers is '3': expected whole numbers"),
    ({"layers": [3, 3]}, "layers [3, 3]: expected distinct"),
    ({"site": "mlp_out", "layers": 0}, "mlp_out has no layer 0"),
    ({"site": "pattern"}, "site is 'pattern': expected one of"),
    ({"site": "mlp_act"}, "a rotation is fitted at resid_post or mlp_out, not at mlp_act"),
    ({"subspace": "das"}, "subspace is 'das': expected one of rotation, means"),
    ({"metric": "kl"}, "metric is 'kl': expected one of logit_difference"),
    ({"subspace": "direction"}, "subspace=direction needs direction"),
    ({"subspace": "coordinates"}, "subspace=coordinates needs coordinates"),
    ({"coordinates": [3]}, "subspace=rotation has no use for coordinates"),
    ({"subspace": "coordinates", "coordinates": [128]}, "a coordinate is 128: resid_post has 128"),
    ({"subspace": "direction", "direction": torch.ones(5)}, "has 5 numbers: resid_post has 128"),
    ({"subspace": "direction", "direction": torch.zeros(128)}, "not all 0"),
    ({"subspace": "direction", "direction": torch.ones(2, 128)}, "2 directions span 1 dimensions"),
    ({"subspace": "direction", "direction": "no.safetensors"}, "expected a safetensors file"),
    ({"held_out": 1}, "held_out is 1: expected between 0 and 1"),
    ({"positions": "subject", "subspace": "means"}, "positions 'subject' are 6 in prompt"),
    ({"held_out": 0.02}, "held-out pairs of 162 prompts in 81 groups: expected at least 8"),
]


@pytest.mark.parametrize(("settings", "said"), REFUSED)
def test_refusals(
    settings: dict[str, object], said: str, atlas: wb.TorchModel, facts: wb.PromptSet
) -> None:
    with pytest.raises(wb.WorkbenchError) as caught:
        Interchange(**settings)(atlas, facts)  # type: ignore[arg-type]
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_prompts_and_models_that_are_refused(atlas: wb.TorchModel, facts: wb.PromptSet) -> None:
    kind = Interchange(subspace="means", positions="last")
    with pytest.raises(wb.PromptError, match="0 training pairs of 1 prompts"):
        kind(atlas, wb.Prompt("The capital of France is", target=" Paris"))
    with pytest.raises(wb.TargetError, match="has no target: give one$"):
        kind(atlas, "The capital of France is")
    alike = [wb.Prompt(f"{text} is", target=" Asia") for text in "abcdefghijklmnopqrstuvwxyz"]
    with pytest.raises(wb.PromptError, match="0 training pairs .* different groups and targets"):
        kind(atlas, alike)
    prompts = [wb.Prompt(f"{i} is", target="ab"[i % 2]) for i in range(40)]
    for family in ("bert", "t5"):
        with pytest.raises(wb.UnsupportedError, match="expected a causal model of one stack"):
            kind(model(family), prompts)


@pytest.mark.parametrize("subspace", ["means", "rotation"])
def test_the_last_step_says_how_far_it_is_and_can_be_cancelled(
    atlas: wb.TorchModel, facts: wb.PromptSet, subspace: str
) -> None:
    """Every batch is foreseen, so that the last one, and it alone, brings the share to 1."""
    kind = Interchange(subspace=subspace, k=2, layers=[2, 5], pairs=8, draws=1, epochs=1)  # type: ignore[arg-type]
    (gathered,) = gather(atlas, facts, [kind])
    shares: list[float] = []
    gathered.result(shares.append)
    assert shares == sorted(shares)
    assert shares[-2] < shares[-1] == 1
    assert wb.plan(atlas, facts, [kind]).block_tokens > 0

    def stop(_: float) -> None:
        raise wb.Cancelled("enough")

    with pytest.raises(wb.Cancelled, match="enough"):
        gathered.result(stop)


def test_a_report_reads_every_shard(facts: wb.PromptSet, tmp_path: Path) -> None:
    file = tmp_path / "facts.jsonl"
    shown = [{"text": p.text, "target": p.target, "subject": p.subject} for p in facts]
    file.write_text("\n".join(map(json.dumps, shown)), encoding="utf-8")
    name = "interchange"
    settings = ["interchange.subspace=means", "interchange.layers=3", "interchange.pairs=16"]
    args = [str(file), "--instruments", name, "--out", str(tmp_path / "out"), "--shard-size", "7"]
    args += [part for setting in settings for part in ("--set", setting)]
    done = CliRunner().invoke(cli, ["report", *args])
    assert done.exit_code == 0, done.output
    assert not (tmp_path / "out" / "errors.jsonl").exists()
    assert "random subspace" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_a_direction_of_a_file(
    atlas: wb.TorchModel, facts: wb.PromptSet, tmp_path: Path, result: wb.Result
) -> None:
    """The class means' own subspace, given as a file, does what it did."""
    basis = torch.tensor(result.data["basis"].sel(layer=3).values)
    path = tmp_path / "continents.safetensors"
    save_file({"rows": basis.T.contiguous()}, path)
    kind = Interchange(layers=3, subspace="direction", direction=path, pairs=64, draws=1)
    found = kind(atlas, facts)
    np.testing.assert_allclose(
        found.data["pair_score"].sel(layer=3, control="subspace"),
        result.data["pair_score"].sel(layer=3, control="subspace"),
        atol=1e-3,
    )
    said = str(found.provenance["settings"]["direction"])
    assert Interchange(subspace="direction", direction=said) == Interchange(
        subspace="direction", direction=path
    )
    with pytest.raises(wb.SettingError, match="has the hash"):
        Interchange(subspace="direction", direction=f"{path}#0123456789abcdef")


def test_neurons_stand_beside_other_neurons(atlas: wb.TorchModel, facts: wb.PromptSet) -> None:
    every = tuple(range(512))
    shared = {"site": "mlp_act", "layers": 2, "pairs": 16, "draws": 1, "twin": False}
    kind = Interchange(subspace="coordinates", coordinates=every, **shared)  # type: ignore[arg-type]
    found = kind(atlas, facts)
    np.testing.assert_allclose(
        *(found.data["pair_score"].sel(control=name) for name in ("subspace", "whole")), atol=1e-4
    )
    assert "twin" not in found.data["control"]


def test_rows_facts_figure_and_report(result: wb.Result) -> None:
    rows = result.rows()
    assert len(rows) == 2 * 7
    assert json.loads(json.dumps(rows)) == rows
    row = next(row for row in rows if (row["layer"], row["control"]) == (3, "subspace"))
    assert (row["site"], row["subspace"], row["k"]) == ("resid_post", "means", 3)
    assert (row["n"], row["n_train"]) == (48, 64)
    assert row["low"] <= row["accuracy"] <= row["high"]
    kind = Interchange
    lines = kind.panels(result.data)[0].lines  # type: ignore[union-attr]
    grey = {name for name, line in lines.items() if line.control}
    assert grey == {"random subspace", "arbitrary targets", "random weights", "no change"}
    assert dict(kind.facts(result.data, layer=3))["whole state"].startswith("100% of pairs")
    assert "3 dimensions" in result.plot().layout.title.text
    import polars as pl

    section = kind.section(pl.LazyFrame(rows), result.data)
    labels = [headline.label for headline in section.headlines]
    assert labels[0] == "accuracy at layer 3"
    assert any("random weights" in label for label in labels)


@pytest.mark.parametrize("engine", ["transformer_lens", "nnsight"])
def test_every_engine_gives_the_same(
    engine: Any, atlas: wb.TorchModel, facts: wb.PromptSet
) -> None:
    hooked = wb.load(engine=engine)
    shared = {"layers": [2], "pairs": 16, "draws": 1, "twin": False}
    coordinates = {"site": "mlp_act", "subspace": "coordinates", "coordinates": range(40)}
    # Fits take eight steps along slopes that differ by rounding; a score is a difference of logits.
    for settings, close32 in ((coordinates, 1e-4), ({"k": 4}, 0.1)):
        kind = Interchange(**shared, **settings)  # type: ignore[arg-type]
        np.testing.assert_allclose(
            kind(hooked, facts).data["pair_score"],
            kind(atlas, facts).data["pair_score"],
            rtol=0,
            atol=close32,
        )


def test_a_field_that_no_prompt_has_is_refused() -> None:
    facts = [wb.Prompt(f"{c}a", subject=c, target="x", group=c) for c in "bcdefghijk"]
    with pytest.raises(wb.PromptError, match="no prompt has a field 'nosuch' to be paired within"):
        Interchange(within="nosuch", subspace="means", k=1)(model("gpt2"), facts)
