"""From a probe to its direction and its units: closed forms, hooks of plain Hugging Face, Atlas."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import workbench as wb
from app.cli import cli
from probes import ProbeAblation, SparseProbe, Steering
from probes.sparse.found import ProbeResult
from probes.sparse.makers import atlas_facts
from probes.steering.ablation_panels import effects
from probes.steering.bootstrap import drawn, mean
from probes.steering.panels import means
from probes.steering.units import controls
from tests.tiny import hf_model, model, tokenizer
from workbench.report import report

LOGITS = ("logits", 3)
WORDS = ("cat", "dog", "a1", "42", "x9y", "Rome", "EU", "7 up", "no", "yes 3", "bb", "of 12", "zz")
TEXTS = [f"{first}{word}" for word in WORDS for first in ("", "Q ")]


def prompts() -> wb.PromptSet:
    """26 prompts of 2 to 8 bytes; those of odd length answer "a" or "b", others "c" or "dd"."""
    return wb.PromptSet.of(
        [
            wb.Prompt(
                text,
                group=str(number // 2),
                labels={"odd": len(text) % 2},
                target="ab"[number % 4 // 2] if len(text) % 2 else ("c", "dd")[number % 4 // 2],
            )
            for number, text in enumerate(TEXTS)
        ]
    )


def more(text: str) -> list[wb.Prompt]:
    """Those, and one without a target."""
    return [*prompts(), wb.Prompt(text, labels={"odd": 1})]


@pytest.fixture(scope="module")
def found() -> ProbeResult:
    return SparseProbe(k=(1, 3), shortlist=8, permutations=0)(model("gpt2"), prompts())


def test_strengths_move_the_score_and_the_means_by_their_closed_form(found: ProbeResult) -> None:
    """At the site: w . (a + s w / |w|^2) is s more; 1 difference takes one class's mean to the other's."""
    hooked, layer = model("gpt2"), 2
    site = ("mlp_act", layer)
    cell = found.data.sel(feature="odd", layer=layer, k=3)
    weight = torch.zeros(64, dtype=torch.float64)
    weight[cell["units"].values] = torch.tensor(cell["weight"].values)
    probe = found.direction("odd", layer, "probe")
    plain = hooked.capture(TEXTS, [site])[site]
    for strength in (-2.0, 0.5):
        moved = probe.on(hooked, strength).capture(TEXTS, [site])[site]
        # 1e-9 of a logit: products of 64 numbers in float64
        change = (moved - plain) @ weight
        torch.testing.assert_close(change, torch.full_like(change, strength), rtol=0, atol=1e-9)
        assert ((moved - plain) != 0).sum(1).max() == 3  # the probe's units alone
    edited = hooked.intervene(TEXTS, [probe.edit(hooked, 2.0, "last")], [site])[site]
    assert int(((edited - plain).abs().sum(1) > 0).sum()) == len(prompts())
    whole = found.direction("odd", layer).vector
    assert float(whole @ weight) > 0  # they agree on which side has the feature
    assert probe.shuffled(0).vector.norm() == pytest.approx(float(probe.vector.norm()))
    assert not probe.shuffled(0).vector.equal(probe.vector)


def test_the_difference_is_that_of_the_training_means(found: ProbeResult) -> None:
    given = [
        wb.Prompt(p.text, labels=p.labels, group=p.group, extra={"split": split})
        for p in prompts()
        for split in [("train", "validation", "test")[int(str(p.group)) % 3]]
    ]
    other = SparseProbe(k=1, site="z", layers=1, permutations=0)(model("gpt2"), given)
    kept = [p for p in given if p.extra["split"] == "train"]
    acts = model("gpt2").capture(kept, [("z", 1)], "last")["z", 1].flatten(1)
    odd = torch.tensor([p.labels["odd"] == 1 for p in kept])
    direction = other.direction("odd")
    torch.testing.assert_close(direction.vector, acts[odd].mean(0) - acts[~odd].mean(0))
    assert direction.steer(model("gpt2"), 1.0).vector.shape == (2, 8)


def hooked_losses(
    units: list[int], value: Callable[[torch.Tensor], torch.Tensor], text: str, answer: str
) -> torch.Tensor:
    """[tokens] surprisals by plain Hugging Face with a hook of its own on what block 2's c_proj reads."""
    hf = model("gpt2").hf

    def hook(_: Any, args: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        new = args[0].clone()
        new[..., units] = value(new)[units]
        return (new,)

    handle = hf.transformer.h[1].mlp.c_proj.register_forward_pre_hook(hook)
    ids = torch.tensor([model("gpt2").encode(wb.Prompt(text + answer)).ids])
    with torch.no_grad():
        logprobs = hf(ids).logits[0, :-1].log_softmax(-1)
    handle.remove()
    return -logprobs.gather(1, ids[0, 1:, None])[:, 0]


@pytest.mark.parametrize("how", ["zero", "mean"])
@pytest.mark.parametrize("loss", ["tokens", "answer"])
def test_ablated_losses_are_those_under_a_hook_of_plain_hugging_face(
    found: ProbeResult, how: str, loss: str
) -> None:
    """Every prompt, three a batch, padding on the left; float64, so 1e-10."""
    hooked, units = model("gpt2"), found.units("odd", 2, 3)
    acts = hooked.capture(TEXTS, [("mlp_act", 2)])["mlp_act", 2]
    means = torch.zeros(64, dtype=torch.float64) if how == "zero" else acts.mean(0)
    probe = ProbeAblation(layers=2, how=how, loss=loss, draws=2).of(found)  # type: ignore[arg-type]
    data = probe(hooked, prompts(), batch_size=3, padding="left").data
    for place, prompt in enumerate(prompts()):
        which, other = ("in", "out") if prompt.labels["odd"] else ("out", "in")
        answer = str(prompt.target) if loss == "answer" else ""
        each = hooked_losses(units, lambda _: means, prompt.text, answer)
        expected = each[-len(answer) :].mean() if answer else each.mean()
        one = data.isel(place=place, layer=0)
        assert float(one["loss"].sel({"class": which})) == pytest.approx(float(expected), abs=1e-10)
        clean = hooked_losses([], lambda _: means, prompt.text, answer)
        clean = clean[-len(answer) :].mean() if answer else clean.mean()
        assert float(one["clean_loss"].sel({"class": which})) == pytest.approx(
            float(clean), abs=1e-10
        )
        assert np.isnan(one["loss"].sel({"class": other}))
    drawn_units = controls(units, 64, 2, (0, 2))[1]
    first = prompts()[0]
    answer = str(first.target) if loss == "answer" else ""
    each = hooked_losses(drawn_units, lambda _: means, first.text, answer)
    expected = each[-len(answer) :].mean() if answer else each.mean()
    random = (
        data["random_loss"]
        .isel(place=0, layer=0, draw=1)
        .sel({"class": "in" if len(first.text) % 2 else "out"})
    )
    assert float(random) == pytest.approx(float(expected), abs=1e-10)


def test_each_token_may_be_of_its_own_class() -> None:
    hooked = model("gpt2")
    given = SparseProbe(k=2, token="all", features="token:digit", permutations=0)(hooked, prompts())
    probe = ProbeAblation(layers=2, classes="token", draws=0, feature="token:digit").of(given)
    texts = ["a1b2", "xyz"]
    data = probe(hooked, texts, padding="left").data
    each = hooked_losses(
        given.units("token:digit", 2, 2), lambda _: torch.zeros(64).double(), "a1b2", ""
    )
    one = data.isel(place=0, layer=0)
    assert one["tokens"].values.tolist() == [1, 2]  # behind the last digit nothing is predicted
    assert float(one["loss"][0]) == pytest.approx(float(each[1]), abs=1e-10)
    assert float(one["loss"][1]) == pytest.approx(float(each[[0, 2]].mean()), abs=1e-10)
    assert "control" not in effects(data, "in")
    assert [row["class"] for row in probe(hooked, texts).rows()] == ["in", "out", "out"]


def test_controls_are_drawn_from_all_other_units() -> None:
    sets = controls([1, 3], 6, 200, (0, 1))
    assert {unit for one in sets for unit in one} == {0, 2, 4, 5}
    assert sets == controls([1, 3], 6, 200, (0, 1)) != controls([1, 3], 6, 200, (1, 1))
    with pytest.raises(wb.SettingError, match="expected at least as many others"):
        controls([0, 1, 2], 4, 1, (0, 1))


def test_intervals_are_over_groups_and_weigh_tokens() -> None:
    """Of a mean of 200 groups of 3 equal places: as wide as 200, not 600, normal numbers make it."""
    rng = np.random.default_rng(0)
    values = np.repeat(rng.normal(size=200), 3)
    groups = [str(i // 3) for i in range(600)]
    value, low, high = mean(values, np.ones(600), drawn(groups, 0))
    assert value == pytest.approx(values.mean())
    expected = 2 * 1.96 * values.std() / 200**0.5
    # the ends of 1000 draws are some 5% off each
    assert float(high - low) == pytest.approx(expected, rel=0.15)
    weighted, *_ = mean(
        np.array([1.0, 4.0, np.nan]), np.array([3.0, 1.0, 0.0]), drawn(list("abc"), 0)
    )
    assert float(weighted) == pytest.approx(7 / 4)


def test_steering_by_nothing_is_the_model_as_it_is_and_edits_are_the_views(
    found: ProbeResult, tmp_path: Path
) -> None:
    hooked = model("gpt2")
    found.save(tmp_path / "probe.nc")
    probe = Steering(probe=str(tmp_path / "probe.nc"), strength=(0.0, 3.0), draws=2)
    result = probe(hooked, prompts(), batch_size=5, padding="left")
    data = result.data
    for name in ("p_in", "p_out", "top_in"):
        # 1e-12: a restart from captured states
        np.testing.assert_allclose(
            data[name].sel(strength=0.0),
            data[f"clean_{name}"].expand_dims(layer=3, axis=1),
            atol=1e-12,
        )
    view = found.direction("odd", 2).on(hooked, 3.0)
    p = view.capture(TEXTS, "logits", "last")[LOGITS].softmax(-1)
    inside = [hooked.tokens.token_id(one) for one in "ab"]
    np.testing.assert_allclose(
        data["p_in"].sel(layer=2, strength=3.0), p[:, inside].sum(-1), atol=1e-12
    )
    assert data["label"].values.tolist() == [p.labels["odd"] for p in prompts()]
    row = result.rows()[0]
    assert row["class"] in ("in", "out")
    assert row["clean_p_in"] == pytest.approx(row["p_in"], abs=1e-12)
    said = result.plot(selected=(2, 0)).layout.title.text
    assert "<b>Steered towards odd</b>" in said
    assert "added at positions: all" in said
    other = probe.of(found)(model("gpt2").twin(), prompts())
    assert "not of these weights" in other.provenance["remarks"][0]


@pytest.mark.parametrize(
    "instrument",
    [
        Steering(draws=1, layers=2),
        ProbeAblation(draws=1),
        ProbeAblation(draws=1, loss="answer"),
    ],
)
def test_plans_count_every_token_that_passes_through_a_block(
    found: ProbeResult, instrument: Steering | ProbeAblation
) -> None:
    """As its attention counts them, one prompt a batch, so that nothing is padded."""
    hooked, counted = model("gpt2"), 0

    def count(_: Any, args: tuple[torch.Tensor], __: Any) -> None:
        nonlocal counted
        counted += args[0].shape[:-1].numel()

    one = instrument.of(found)
    handles = [block.attn.c_attn.register_forward_hook(count) for block in hooked.hf.transformer.h]
    one(hooked, prompts(), batch_size=1)
    for handle in handles:
        handle.remove()
    assert wb.plan(hooked, prompts(), [one], batch_size=1).block_tokens == counted


def test_reports_and_facts(found: ProbeResult, tmp_path: Path) -> None:
    hooked = model("gpt2")
    both = [Steering(draws=1).of(found), ProbeAblation(draws=1).of(found)]
    made = report(hooked, prompts(), both, tmp_path / "out", shard_size=9)
    assert made.page is not None
    page = made.page.read_text(encoding="utf-8")
    assert "Strength 2" in page
    assert "Steered towards odd" in page
    assert "Beyond the control" in page
    for one in both:
        one(hooked, prompts()).save(tmp_path / f"{one.name}.nc")
        kept = wb.Result.load(tmp_path / f"{one.name}.nc")
        assert kept.rows() == one(hooked, prompts()).rows()
    data = both[1](hooked, prompts()).data
    assert "of the probe of odd</b>" in ProbeAblation.figure(data).layout.title.text
    assert len(ProbeAblation.facts(data, layer=2)) == 7
    assert ProbeAblation.facts(data, layer=0) == []
    alone = Steering(draws=0, strength=1.0).of(found)(hooked, prompts()).data
    known = dict(Steering.facts(alone, layer=2))
    assert list(known) == ["norm of the direction", "p(in class), strength 1, steered"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: Steering()(model("gpt2"), prompts()), "no probe: expected probe=FILE"),
        (lambda f: f.steer(model("gpt2"), prompts(), feature="even"), "feature is 'even'"),
        (lambda f: f.steer(model("gpt2"), prompts(), layers=9), "layer 9 was not probed"),
        (lambda f: f.ablate(model("gpt2"), prompts(), k=2), "k=2 was not probed: expected one of 1, 3"),
        (lambda f: f.ablate(model("bert"), prompts()), "expected a decoder"),
        (lambda f: f.ablate(model("gpt2"), more("a")), "'a' has one token"),
        (lambda f: f.ablate(model("gpt2"), more("abc"), loss="answer"), "has no target"),
        (lambda f: f.ablate(model("gpt2"), ["ab"]), "no prompt has 'odd'"),
        (lambda f: f.steer(model("gpt2"), ["ab"]), "have no answers of their own"),
        (lambda f: ProbeAblation(loss="answer", classes="token"), "loss=answer is of whole prompts"),
        (lambda f: Steering(direction="up"), "direction is 'up'"),
    ],
)  # fmt: skip
def test_what_is_refused(
    found: ProbeResult, make: Callable[[ProbeResult], Any], message: str
) -> None:
    with pytest.raises(wb.WorkbenchError, match=message):
        make(found)


def test_atlas_is_steered_to_languages_and_not_by_random_directions() -> None:
    """On subjects of which the probe has seen nothing: prompts of other relations get languages."""
    atlas, kinds = wb.load(), ("language", "capital", "currency", "continent")
    every = [p for p in atlas_facts() if any(p.labels[f"relation={kind}"] for kind in kinds)]
    names = sorted({str(p.group) for p in every})
    half = set(names[::2])
    seen, new = ([p for p in every if (p.group in half) is one] for one in (True, False))
    feature = "relation=language"
    probe = SparseProbe(k=1, features=feature, site="resid_post", layers=4, permutations=0)
    data = probe(atlas, seen).steer(atlas, new[:80], strength=2.0, positions="last", draws=4).data
    clean, steered, random = (
        [float(end.squeeze()) for end in means(data, name, 0)]
        for name in ("clean_top_in", "top_in", "random_top_in")
    )
    assert clean[0] == 0.0
    assert steered[1] > 0.5  # the interval's low end
    assert random[2] < 0.1  # the interval's high end


@pytest.mark.parametrize("engine", ["transformer_lens", "nnsight"])
def test_every_engine_gives_the_same(found: ProbeResult, engine: str) -> None:
    other = wb.load(hf_model("gpt2"), tokenizer(), engine=engine)
    some = list(prompts())[:6]
    for instrument in (Steering(layers=2, draws=1), ProbeAblation(layers=2, draws=1)):
        one = instrument.of(found)
        mine, theirs = (one(each, some).data for each in (model("gpt2"), other))
        for name in mine.data_vars:
            # 1e-9: float64, another order of sums
            np.testing.assert_allclose(theirs[name], mine[name], rtol=0, atol=1e-9)


def test_the_command_line_goes_on_from_a_saved_probe(found: ProbeResult, tmp_path: Path) -> None:
    """Each prompt's units, a list of numbers, stand in the printed table."""
    atlas, some = wb.load(), [p for p in atlas_facts() if "continent=Asia" in p.labels][::5]
    probe = SparseProbe(k=2, features="continent=Asia", layers=3, permutations=0)(atlas, some)
    probe.save(tmp_path / "probe.nc")
    lines = [
        json.dumps({"text": p.text, "target": p.target, "labels": p.labels}) for p in some[::4]
    ]
    (tmp_path / "some.jsonl").write_text("\n".join(lines), encoding="utf-8")
    given = ["--prompts", str(tmp_path / "some.jsonl"), "--set", f"probe={tmp_path / 'probe.nc'}"]
    done = CliRunner().invoke(cli, ["run", "probe_ablation", *given])
    assert done.exit_code == 0, done.output
    assert " ".join(map(str, probe.units("continent=Asia", 3))) in done.stdout
    done = CliRunner().invoke(cli, ["run", "steer", *given, "--set", "strength=-2,2", "--json"])
    assert done.exit_code == 0, done.output
    assert {row["strength"] for row in json.loads(done.stdout)} == {-2.0, 2.0}
    refused = CliRunner().invoke(cli, ["run", "steer", *given, "--set", "feature=Asia"])
    assert refused.exit_code == 2
