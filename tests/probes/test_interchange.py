"""Interchanges against plain patching, closed forms, and transformer-lens' own."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformer_lens.tools.analysis import interchange as other
from typer.testing import CliRunner

import workbench as wb
from app.cli import cli
from probes import Interchange
from probes.interchange import bootstrap
from probes.interchange.levels import Asked, Level, levels
from probes.interchange.pairs import arbitrary, paired
from probes.interchange.rotation import Fit
from probes.interchange.subspaces import (
    axes,
    class_means,
    matched,
    moved,
    other_axes,
    random_basis,
)
from tests.models.bridges import bridge
from tests.models.test_engine import close
from tests.tiny import LAYERS, model
from workbench.atlas import prompts_path
from workbench.passes import finished, gather

TEXTS = ["The Eiffel Tower", "Rome was", "a b c d e f g h", "xy", "Colosseum is in"]
AT = torch.tensor([4, 3, 0, 1, 8])
BASE, SOURCE = torch.tensor([0, 1, 4, 2, 0]), torch.tensor([1, 0, 3, 4, 2])
WIDE = torch.float64


def asked(family: str, hooked: wb.TorchModel | None = None) -> Asked:
    hooked = hooked or model(family)
    return Asked(hooked, [hooked.encode(wb.Prompt(text)) for text in TEXTS], AT)


def level(family: str, site: str, layer: int) -> Level:
    return next(levels(asked(family), site, [layer]))


def logits(here: Level, rows: torch.Tensor, moves: torch.Tensor) -> torch.Tensor:
    found = torch.zeros(len(rows), here.asked.model.vocab_size, dtype=here.values.dtype)
    for part, values in here.logits(rows, moves):
        found[part] = values
    return found


SITES = [
    ("gpt2", "resid_post", 0),
    ("gpt2", "resid_pre", 2),
    ("gpt2", "resid_mid", 2),
    ("gpt2", "attn_out", 1),
    ("gpt2", "mlp_act", 2),
    ("gpt2", "mlp_out", 2),
    ("gpt_neox", "mlp_out", 2),
    ("gemma2", "mlp_out", 1),
    ("llama", "resid_post", LAYERS),
]


@pytest.mark.parametrize(("family", "site", "layer"), SITES)
def test_the_whole_state_is_plain_patching(family: str, site: str, layer: int) -> None:
    here, hooked = level(family, site, layer), model(family)
    moves = here.values[SOURCE] - here.values[BASE]
    found = logits(here, BASE, moves)
    for row, (base, source) in enumerate(zip(BASE.tolist(), SOURCE.tolist(), strict=True)):
        place = [int(AT[source])]
        value = hooked.capture(TEXTS[source], [(site, layer)], place)[site, layer]
        edit = wb.Edit.set((site, layer), value, [int(AT[base])])
        patched = hooked.intervene(TEXTS[base], [edit], positions="last")["logits", LAYERS][0]
        torch.testing.assert_close(found[row], patched, **close(family))
    plain = torch.stack(
        [hooked.capture(text, ["logits"], "last")["logits", LAYERS][0] for text in TEXTS]
    )
    still = logits(here, BASE, torch.zeros_like(moves))
    torch.testing.assert_close(still, plain[BASE], **close(family))
    same = logits(here, BASE, here.values[BASE] - here.values[BASE])
    assert torch.equal(same, still)


@pytest.mark.parametrize(
    ("family", "site", "layer"), [("gpt2", "resid_post", 1), ("gpt_neox", "mlp_out", 2)]
)
def test_slopes_are_finite_differences(family: str, site: str, layer: int) -> None:
    here, wanted = level(family, site, layer), torch.tensor([65, 66, 67, 68, 69])
    generator = torch.Generator().manual_seed(0)
    moves, step = (
        torch.randn(5, here.values.shape[1], generator=generator, dtype=WIDE) for _ in range(2)
    )

    def loss(by: float) -> float:
        logprobs = logits(here, BASE, moves + by * step).double().log_softmax(-1)
        return -float(logprobs[torch.arange(5), wanted].sum())

    found, slopes = here.slopes(BASE, moves, wanted)
    # A central difference errs by the square of its size times a third derivative (of order 1 to
    # 100), and by rounding over its size; NeoX's rotary angles are float32.
    size, most = (1e-5, 1e-6) if family == "gpt2" else (1e-3, 1e-3)
    assert found == pytest.approx(loss(0), rel=most)
    slope = (loss(size) - loss(-size)) / (2 * size)
    assert float((slopes * step).sum()) == pytest.approx(slope, rel=most)


def test_subspaces_are_projections() -> None:
    generator = torch.Generator().manual_seed(0)
    base, source = torch.randn(2, 7, 12, generator=generator, dtype=WIDE)
    close64 = {"rtol": 0, "atol": 1e-13}  # sums of a dozen terms of size 1
    nothing, everything = torch.zeros(12, 0, dtype=WIDE), torch.eye(12, dtype=WIDE)
    assert not moved(base, source, nothing).any()
    torch.testing.assert_close(base + moved(base, source, everything), source, **close64)
    assert not moved(base, base, random_basis(12, 5, 0)).any()
    basis = random_basis(12, 5, 0)
    torch.testing.assert_close(basis.T @ basis, torch.eye(5, dtype=WIDE), **close64)
    once = base + moved(base, source, basis)
    torch.testing.assert_close(moved(once, source, basis), torch.zeros_like(once), **close64)
    rest = everything - basis @ basis.T
    torch.testing.assert_close(once @ rest, base @ rest, **close64)
    chosen = axes(12, [4, 1], base)
    coordinates = base + moved(base, source, chosen)
    torch.testing.assert_close(coordinates[:, [1, 4]], source[:, [1, 4]], **close64)
    assert torch.equal(coordinates[:, [0, 2, 3]], base[:, [0, 2, 3]])
    like = moved(base, source, basis)
    scaled = matched(base, source, random_basis(12, 3, 1), like)
    torch.testing.assert_close(scaled.norm(dim=-1), like.norm(dim=-1), **close64)
    assert not matched(base, base, basis, like).any()
    drawn = other_axes(12, [0, 1, 2], 3)
    assert len(set(drawn)) == 3
    assert not set(drawn) & {0, 1, 2}


def projector(basis: torch.Tensor) -> torch.Tensor:
    return basis @ basis.T


def test_class_means_have_a_closed_form() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(12, 6, generator=generator, dtype=WIDE)
    classes, kinds = torch.tensor([0, 1, 0, 1, 1, 0] * 2), torch.zeros(12, dtype=torch.int64)
    difference = values[classes == 0].mean(0) - values[classes == 1].mean(0)
    unit = difference / difference.norm()
    found = class_means(values, classes, kinds, 4)
    assert found.shape == (6, 1)
    torch.testing.assert_close(projector(found), torch.outer(unit, unit), rtol=0, atol=1e-13)
    # What all of a kind share is no difference of classes: two kinds far apart add nothing of it.
    far = torch.tensor([0] * 6 + [1] * 6)
    shifted = values + 100 * far[:, None]
    two = class_means(shifted, classes + 2 * far, far, 4)
    assert two.shape == (6, 2)
    torch.testing.assert_close(
        projector(two),
        projector(class_means(values, classes + 2 * far, far, 4)),
        rtol=0,
        atol=1e-10,
    )
    four = torch.tensor([0, 1, 2, 3] * 3)
    theirs = other.mean_difference_basis(values, four.tolist())
    # transformer-lens takes means and directions in float32
    torch.testing.assert_close(
        projector(class_means(values, four, kinds, 5)).float(), projector(theirs), rtol=0, atol=1e-5
    )


@pytest.fixture
def doubles() -> Iterator[None]:
    """transformer-lens draws and keeps a subspace in torch's default type."""
    torch.set_default_dtype(WIDE)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("doubles")
def test_interchange_and_fit_are_those_of_transformer_lens() -> None:
    hooked = bridge("gpt2")
    texts = ["abcdef", "ghijkl", "mnopqr", "stuvwx", "yzabcd", "efghij", "klmnop", "qrstuv"]
    prompts = [hooked.encode(wb.Prompt(text)) for text in texts]
    at = torch.tensor([2, 3, 1, 2, 4, 0, 2, 3])
    mine = Asked(hooked, prompts, at)
    here = next(levels(mine, "resid_post", [2]))
    base, source = torch.arange(8), torch.tensor([3, 0, 1, 2, 7, 4, 5, 6])
    wanted = torch.tensor([65, 66, 67, 68, 69, 70, 71, 72])
    ids = torch.tensor([prompt.ids for prompt in prompts])
    theirs, hook = hooked.bridge, "blocks.1.hook_out"

    def task(tokens: torch.Tensor) -> torch.Tensor:
        return theirs(tokens)[:, -1]

    acts = other.collect_activations(theirs, hook, ids[source], task, positions=at[source])
    torch.testing.assert_close(here.values[source], acts)
    basis = random_basis(here.values.shape[1], 3, 0)
    step = other.SubspaceInterchange(basis)
    expected = other.intervened_logits(
        theirs, hook, step, ids[base], acts, task, positions=at[base]
    )
    own, aside = here.values[base], here.values[source]
    torch.testing.assert_close(
        logits(here, base, moved(own, aside, basis)), expected, **close("gpt2")
    )
    placebo = other.NormMatchedPlacebo(step, random_basis(own.shape[1], 3, 1))
    like = moved(own, aside, basis)
    torch.testing.assert_close(own + matched(own, aside, placebo.basis, like), placebo(own, aside))
    basis, losses = Fit(3, 4, 0.02, 7, batch=4, eps=1e-8).basis(here, base, source, wanted)
    fitted = other.fit_das(
        theirs, hook, ids[base], ids[source], wanted, task,
        rank=3, base_positions=at[base], source_positions=at[source],
        epochs=4, batch_size=4, lr=0.02, seed=7,
    )  # fmt: skip
    # The same seeds and steps: Adam makes at most 0.02 * 1e-16 / 1e-8 of a slope that is rounding.
    np.testing.assert_allclose(losses, fitted.losses, rtol=1e-8)
    torch.testing.assert_close(projector(basis), projector(fitted.basis), rtol=0, atol=1e-8)
    assert losses[-1] < losses[0]


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


def test_a_rotation_of_the_whole_width_is_the_whole_state() -> None:
    here = level("gpt2", "resid_post", 2)
    wanted = torch.tensor([65, 66, 67, 68, 69])
    basis, _ = Fit(here.values.shape[1], 1, 0.02, 0).basis(here, BASE, SOURCE, wanted)
    own, aside = here.values[BASE], here.values[SOURCE]
    # The parameter is made in float32.
    torch.testing.assert_close(own + moved(own, aside, basis), aside, rtol=0, atol=1e-5)


def test_pairs_keep_groups_apart() -> None:
    generator = torch.Generator().manual_seed(1)
    table = {
        "group": torch.randint(30, (200,), generator=generator),
        "kind": torch.randint(2, (200,), generator=generator),
        "target": torch.randint(5, (200,), generator=generator),
    }
    found = paired(table, seed=0, share=0.4, most=50, within="relation")
    held = found.held_out
    sides = [
        set(table["group"][torch.cat([found.base[side], found.source[side]])].tolist())
        for side in (held, ~held)
    ]
    assert not sides[0] & sides[1]
    assert (table["kind"][found.base] == table["kind"][found.source]).all()
    for name in ("group", "target"):
        assert (table[name][found.base] != table[name][found.source]).all()
    assert int(held.sum()) == 50
    assert len(set(found.base.tolist())) == len(found)
    again = paired(table, seed=1, share=0.4, most=50, within="relation")
    assert not torch.equal(again.base, found.base)


def test_arbitrary_targets_are_a_rule_that_gives_neither_answer() -> None:
    known = {0: torch.tensor([3, 5, 8, 9]), 1: torch.tensor([2, 7])}
    kind = torch.tensor([0] * 12 + [1] * 2)
    four = [(a, b) for a in known[0].tolist() for b in known[0].tolist() if a != b]
    base, source = torch.tensor([*four, (2, 7), (7, 2)]).T
    found = arbitrary(kind, base, source, known, 300, 0)
    assert not (found == base).any()
    assert not (found == source).any()
    assert set(found[:12].tolist()) <= {3, 5, 8, 9}
    assert found[12] == found[13]  # the drawn third
    for answer in known[0].tolist():  # one other answer for each, but where that is the base's own
        given = found[:12][source[:12] == answer]
        assert given.unique(return_counts=True)[1].max() == 2


def test_the_bootstrap_resamples_groups() -> None:
    base, source = torch.tensor([5, 5, 7, 9]), torch.tensor([7, 9, 9, 5])
    drawn = bootstrap.weights(base, source, 3)
    generator = torch.Generator().manual_seed(3)
    picks = torch.randint(3, (bootstrap.DRAWS, 3), generator=generator)
    groups = [5, 7, 9]
    for row in range(20):
        counts = {group: int((picks[row] == i).sum()) for i, group in enumerate(groups)}
        expected = [
            counts[b] * counts[s] for b, s in zip(base.tolist(), source.tolist(), strict=True)
        ]
        assert drawn[row].tolist() == expected
    values = torch.tensor([[1.0, 0.0, 1.0, 1.0], [2.0, 2.0, 2.0, 2.0]])
    mean, low, high = bootstrap.intervals(values, drawn)
    assert mean.tolist() == [0.75, 2.0]
    assert low[0] < 0.75 < high[0]
    assert (float(low[1]), float(high[1])) == pytest.approx((2.0, 2.0))


def test_intervals_hold_the_mean_of_new_groups() -> None:
    """Nine in ten and more of such intervals hold the truth, where pairs depend on their groups."""
    generator, held, trials = torch.Generator().manual_seed(0), 0, 100
    for trial in range(trials):
        effects = torch.randn(40, generator=generator, dtype=WIDE)
        base = torch.arange(40).repeat(2)
        source = (base + 1 + torch.randint(39, (80,), generator=generator)) % 40
        values = effects[base] + effects[source]
        _, low, high = bootstrap.intervals(values, bootstrap.weights(base, source, trial))
        held += int(low <= 0 <= high)
    # A 95% interval of 40 groups; three standard errors of a hundred trials below that.
    assert held >= 88


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
    with pytest.raises(wb.TargetError, match="has no target"):
        kind(atlas, "The capital of France is")
    alike = [wb.Prompt(f"{text} is", target=" Asia") for text in "abcdefghijklmnopqrstuvwxyz"]
    with pytest.raises(wb.PromptError, match="0 training pairs .* different groups and targets"):
        kind(atlas, alike)
    prompts = [wb.Prompt(f"{i} is", target="ab"[i % 2]) for i in range(40)]
    for family in ("bert", "t5"):
        with pytest.raises(wb.UnsupportedError, match="expected a causal model of one stack"):
            kind(model(family), prompts)


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
