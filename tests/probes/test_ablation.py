"""Ablations against weights set to zero, whole passes by the definition, and another library."""

from __future__ import annotations

import re
from copy import deepcopy
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from scipy import stats
from torch import Tensor

import workbench as wb
from probes import Ablate
from probes.ablation.cells import ablated, moved_at_random
from probes.ablation.clean import Clean
from probes.ablation.comparison import compared
from probes.ablation.reference import Reference, aligned
from probes.ablation.values import Values
from tests.models.bridges import bridge
from tests.tiny import LAYERS, hf_model, model, tokenizer_of
from workbench.errors import Cancelled
from workbench.report.run import report
from workbench.report.tables import frame

PROMPTS = [
    wb.Prompt("The Eiffel Tower", id="a", target="Q", foil="Z"),
    wb.Prompt("Rome is old", id="b", target="R", foil="S"),
    wb.Prompt("ab", id="c", target="xyz"),
]
# Sums of some hundred float64 roundings, of numbers below 100; norms and soft-caps of some families
# run in float32 whatever the dtype.
NEAR = {"rel": 1e-9, "abs": 1e-9}
FLOAT32 = {"rel": 1e-4, "abs": 1e-5}


def by_definition(m: wb.Model, prompt: wb.Prompt, edits: Any = ()) -> tuple[float, float]:
    """Loss and log p(target) of one prompt alone, from whole passes; no padding."""
    encoded = m.encode(prompt, long_targets=True)
    goal = encoded.answer or (encoded.target,)
    whole = m.batch([wb.Prompt(prompt.text + str(prompt.target))])
    logits = m.intervene(whole, edits)["logits", LAYERS].log_softmax(-1)
    ids = whole.ids[0]
    each = -logits[:-1].gather(1, ids[1:, None])[:, 0]
    n = len(encoded)
    return float(each[: n - 1].mean()), -float(each[n - 1 : n - 1 + len(goal)].sum())


def edit_of(m: wb.Model, what: str, first: int, last: int, head: int, value: Any) -> list[wb.Edit]:
    """By plain edits, of every position: `value(site, layer)` is put in."""
    if what == "heads":

        def one(old: Tensor, _: Any) -> Tensor:
            new = old.clone()
            new[:, head] = value("z", first)[..., head, :]
            return new

        return [wb.Edit(("z", first), one)]
    sites = {"mlp": ["mlp_out"], "attention": ["attn_out"], "blocks": ["attn_out", "mlp_out"]}[what]
    return [
        wb.Edit((site, k), lambda old, _, s=site, k=k: value(s, k).expand_as(old))
        for site in sites
        for k in range(first, last + 1)
    ]


def cells(what: str, ranges: bool) -> list[tuple[int, int, int]]:
    """(first, last, head)."""
    if what == "heads":
        return [(k, k, h) for k in range(1, LAYERS + 1) for h in range(2)]
    pairs = [(a, b) for a in range(1, LAYERS + 1) for b in range(a, LAYERS + 1)]
    return [(a, b, 0) for a, b in pairs if ranges or a == b]


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "gemma2"])
@pytest.mark.parametrize(
    ("what", "ranges"),
    [("heads", False), ("mlp", False), ("mlp", True), ("attention", True), ("blocks", True)],
)
def test_every_zero_ablation_is_a_whole_pass_with_zeros(
    family: str, what: str, ranges: bool
) -> None:
    """Restarts and batches of prompts of three lengths against each alone; targets of two lengths."""
    hooked, near = model(family), FLOAT32 if family == "gemma2" else NEAR
    found = {
        (row["prompt"], row["layer"], row["layer_end"], row["head"] or 0): row
        for row in Ablate(what=what, each="range" if ranges else "layer")(
            hooked, PROMPTS, padding="left"
        ).rows()
    }
    wanted = cells(what, ranges)
    assert len(found) == len(PROMPTS) * len(wanted)
    for prompt in PROMPTS:
        clean = by_definition(hooked, prompt)
        for first, last, head in wanted:
            edits = edit_of(
                hooked,
                what,
                first,
                last,
                head,
                lambda s, k: torch.zeros(2, 8) if s == "z" else torch.zeros(16),
            )
            loss, score = by_definition(hooked, prompt, edits)
            row = found[prompt.id, first, last, head]
            assert row["loss"] == pytest.approx(loss, **near)
            assert row["score"] == pytest.approx(score, **near)
            assert row["loss_clean"] == pytest.approx(clean[0], **near)
            assert row["clean"] == pytest.approx(clean[1], **near)
            assert row["effect"] == pytest.approx(score - clean[1], **near)


def test_a_head_without_its_rows_of_the_output_map_and_hugging_faces_own_loss() -> None:
    prompt, layer, head = PROMPTS[0], 2, 1
    hooked = model("gpt2")
    cut = deepcopy(hf_model("gpt2"))
    with torch.no_grad():
        cut.transformer.h[layer - 1].attn.c_proj.weight[head * 8 : (head + 1) * 8] = 0
    rows = Ablate(layers=[layer], metric="logit_difference")(hooked, prompt).rows()
    ids = torch.tensor([hooked.encode(prompt).ids])
    target, foil = hooked.encode(prompt).target, hooked.encode(prompt).foil
    for hf, score, loss in (
        (cut, rows[head]["score"], rows[head]["loss"]),
        (hooked.hf, rows[head]["clean"], rows[head]["loss_clean"]),
    ):
        with torch.no_grad():
            out = hf(ids, labels=ids)
        assert loss == pytest.approx(float(out.loss), **FLOAT32)  # Hugging Face's loss is float32
        assert score == pytest.approx(float(out.logits[0, -1, target] - out.logits[0, -1, foil]))


def test_without_any_block_the_embedding_is_read_out() -> None:
    hooked, prompt = model("llama"), PROMPTS[0]
    row = Ablate(what="blocks", each="range")(hooked, prompt).rows()[LAYERS - 1]
    assert (row["layer"], row["layer_end"]) == (1, LAYERS)
    encoded = hooked.encode(prompt)
    logits = hooked.readout(hooked.embedded(prompt)[0])
    ids = torch.tensor(encoded.ids[1:])
    expected = torch.nn.functional.cross_entropy(logits[:-1], ids)
    assert row["loss"] == pytest.approx(float(expected), **NEAR)
    assert row["score"] == pytest.approx(float(logits[-1].log_softmax(-1)[encoded.target]), **NEAR)


@pytest.mark.parametrize("what", ["heads", "mlp", "attention", "blocks"])
def test_means_are_those_of_the_set(what: str) -> None:
    """The mean over all tokens by another way; at each position; and of one that does not vary."""
    hooked = model("gpt2")
    site = {"heads": "z", "mlp": "mlp_out", "attention": "attn_out"}
    name = {"blocks": ["attn_out", "mlp_out"]}.get(what, [site.get(what, "")])
    texts = [wb.Prompt(p.text) for p in PROMPTS]
    read = {
        (s, k): [hooked.capture(t, [(s, k)])[s, k] for t in texts] for s in name for k in (1, 2, 3)
    }
    rows = Ablate(what=what, how="mean", control=0)(hooked, PROMPTS).rows()
    for row in rows[-3:]:
        edits = edit_of(
            hooked,
            what,
            row["layer"],
            row["layer"],
            row["head"] or 0,
            lambda s, k: torch.cat(read[s, k]).mean(0),
        )
        loss, score = by_definition(hooked, PROMPTS[2], edits)
        assert row["loss"] == pytest.approx(loss, **NEAR)
        assert row["score"] == pytest.approx(score, **NEAR)
    # Texts that are all alike: at each position the mean is the prompt's own value.
    alike = [wb.Prompt(PROMPTS[0].text, id=name, target="Q") for name in "ab"]
    for row in Ablate(what=what, how="mean", mean="position")(hooked, alike).rows():
        assert row["effect"] == pytest.approx(0, abs=1e-9)
        assert row["loss_effect"] == pytest.approx(0, abs=1e-9)


def test_a_text_is_never_replaced_by_itself_alone() -> None:
    """Positions that one text alone reaches have the mean over all; of one text they all do."""
    hooked, short = model("gpt2"), PROMPTS[1]
    by_position, overall = (
        Ablate(what="mlp", how="mean", mean=mean)(hooked, short).data["score"].values
        for mean in ("position", "all")
    )
    np.testing.assert_array_equal(by_position, overall)
    long = PROMPTS[0]
    texts = [hooked.capture(p, [("mlp_out", 2)])["mlp_out", 2] for p in (long, short)]
    n = len(texts[1])
    means = torch.cat(texts).mean(0).expand(len(texts[0]) + 1, -1).clone()  # and the target
    means[:n] = (texts[0][:n] + texts[1]) / 2
    edit = wb.Edit(("mlp_out", 2), lambda old, _: means)
    row = Ablate(what="mlp", how="mean", mean="position")(hooked, [long, short]).rows()[1]
    assert row["score"] == pytest.approx(by_definition(hooked, long, [edit])[1], **NEAR)


@pytest.mark.parametrize(
    ("what", "each"),
    [("heads", "layer"), ("mlp", "range"), ("attention", "range"), ("blocks", "range")],
)
def test_a_plan_counts_what_is_run(what: str, each: str) -> None:
    """Prompts of one length, so that no padding is counted."""
    hooked = model("gpt2")
    texts = [wb.Prompt(text, id=text, target="xy") for text in ("abcd", "efgh", "ijkl")]
    ablate = Ablate(what=what, each=each, how="resample", draws=2, control=3)
    planned = wb.plan(hooked, texts, [ablate]).block_tokens
    assert planned == int(ablate(hooked, texts).data["block_tokens"].sum())


@pytest.mark.parametrize("what", ["heads", "mlp", "attention", "blocks"])
def test_resampled_values_are_the_other_texts_own(what: str) -> None:
    """A text with another first letter alone: as long, so that positions stand for themselves."""
    hooked = model("gpt2")
    pair = [wb.Prompt("abcdef", target="Q"), wb.Prompt("xbcdef", target="Q")]
    rows = Ablate(what=what, how="resample", draws=1)(hooked, pair).rows()
    sites = {"heads": ["z"], "mlp": ["mlp_out"], "attention": ["attn_out"]}.get(
        what, ["attn_out", "mlp_out"]
    )
    other = {(s, k): hooked.capture(pair[1], [(s, k)])[s, k] for s in sites for k in (1, 2, 3)}
    for row in rows[: len(rows) // 2]:
        edits = edit_of(
            hooked, what, row["layer"], row["layer"], row["head"] or 0, lambda s, k: other[s, k]
        )
        alone = hooked.intervene(pair[0], edits)["logits", LAYERS]
        target = hooked.encode(pair[0]).target
        assert row["score"] == pytest.approx(float(alone[-1].log_softmax(-1)[target]), **NEAR)
    same = [wb.Prompt("abcdef", target="Q", id="1"), wb.Prompt("abcdef ", target="Q", id="2")]
    several = Ablate(what=what, how="resample", draws=2)(hooked, [*pair, *same[1:]])
    assert several.data.sizes["draw"] == 2
    row = several.rows()[0]
    drawn = several.data.score.values[0].reshape(-1, 2)[0]
    assert row["stderr"] == pytest.approx(drawn.std(ddof=1) / 2**0.5)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_two_other_engines_say_the_same(family: str) -> None:
    """transformer-lens' own hooks, and its engine and nnsight's behind the same settings."""
    own, hooked = model(family), bridge(family)
    near = FLOAT32 if family == "llama" else NEAR  # its norms run in float32
    prompt, layer, head = PROMPTS[0], 2, 1
    ids = torch.tensor([hooked.encode(prompt).ids])
    target = hooked.encode(prompt).target

    def cut(z: Tensor, hook: Any) -> Tensor:
        z = z.clone()
        z.view(*z.shape[:2], 2, 8)[:, :, head] = 0
        return z

    hooks = [(f"blocks.{layer - 1}.attn.hook_z", cut)]
    logits = hooked.bridge.run_with_hooks(ids, fwd_hooks=hooks)[0].detach().log_softmax(-1)
    settings = {"layers": [layer], "control": 0}
    for one in (own, hooked, wb.load(own.hf, tokenizer_of(family), engine="nnsight")):
        row = Ablate(**settings)(one, prompt).rows()[head]
        assert row["score"] == pytest.approx(float(logits[-1, target]), **near)
        expected = -logits[:-1].gather(1, ids[0, 1:, None]).mean()
        assert row["loss"] == pytest.approx(float(expected), **near)


def test_no_block_is_run_below_an_ablation() -> None:
    """Tokens counted inside attention, which a block that is passed over does not reach."""
    hooked, prompt = model("gpt2"), PROMPTS[0]
    tokens, n = len(hooked.encode(prompt).ids), LAYERS
    counted = [0]

    def count(module: Any, args: Any, kwargs: Any) -> None:
        states = args[0] if args else kwargs["hidden_states"]
        counted[0] += states.shape[0] * states.shape[1]

    above = sum(n - k for k in range(1, n + 1))  # blocks above each layer
    expected = {
        ("heads", "layer"): 2 * (n + above),
        ("attention", "layer"): n + above,
        ("mlp", "layer"): above,
        ("blocks", "layer"): above,
        ("blocks", "range"): sum(b * (n - b) for b in range(1, n + 1)),
        ("attention", "range"): sum(n + 1 - a for a in range(1, n + 1))
        + sum(b * (n - b) for b in range(1, n + 1)),
    }
    for (what, each), blocks in expected.items():
        counted[0] = 0
        handles = [
            block.attn.register_forward_pre_hook(count, with_kwargs=True)
            for block in hooked.hf.transformer.h
        ]
        try:
            found = Ablate(what=what, each=each, control=0)(hooked, prompt).data.block_tokens
        finally:
            for handle in handles:
                handle.remove()
        assert found.item() == counted[0] == tokens * (n + blocks)  # the clean run's n among them


@pytest.mark.parametrize("how", ["zero", "mean", "resample"])
def test_batches_and_padding_change_nothing(how: str) -> None:
    hooked = model("llama")
    settings = {"how": how, "draws": 2, "control": 2, "layers": [1, 3]}
    whole = Ablate(**settings)(hooked, PROMPTS, padding="left").data
    alone = Ablate(**settings)(hooked, PROMPTS, batch_size=1).data
    for name in ("score", "loss", "random_score", "random_loss", "clean", "loss_clean"):
        torch.testing.assert_close(
            torch.tensor(whole[name].values), torch.tensor(alone[name].values), rtol=1e-8, atol=1e-9
        )
    assert whole.random_score.std("control").min() > 0  # two directions
    assert Ablate(**settings, seed=1)(hooked, PROMPTS).data.random_loss.values[0, 0, 0, 0] != (
        pytest.approx(whole.random_loss.values[0, 0, 0, 0])
    )


def test_the_control_moves_the_stream_as_far() -> None:
    hooked = model("gpt2")
    clean = Clean.of(hooked, [hooked.encode(p) for p in PROMPTS[:2]], "logprob", mlp=True)
    values = Values.zero(clean.states[0], LAYERS)
    lengths = torch.tensor(clean.lengths)
    inside = torch.arange(clean.batch.ids.shape[1]) < lengths[:, None]
    for behind in ablated(clean, "mlp", values, {1: {1: 0}, 2: {2: 0}}, 100):
        moved = moved_at_random(clean, behind, 0, 0)
        own = clean.states[behind.layer]
        far = [(one.states - own).norm(dim=-1)[inside] for one in (behind, moved)]
        torch.testing.assert_close(*far)
        assert (moved.states - behind.states).norm(dim=-1)[inside].min() > 0


def test_kl_of_what_changes_nothing_is_0_and_a_prompt_of_one_token_has_no_loss() -> None:
    hooked = model("gpt2")
    rows = Ablate(what="blocks", metric="kl", control=0)(hooked, ["a", "abc"]).rows()
    assert [row["loss"] is None for row in rows] == [True] * LAYERS + [False] * LAYERS
    assert all(row["score"] > 0 == row["clean"] for row in rows)


def test_draws_are_the_same_in_every_shard_and_never_the_prompt_itself() -> None:
    texts = [wb.Prompt(f"text {i}", labels={"half": i % 2 == 0}) for i in range(30)]
    found = Reference.of(texts, file="", most=10, seed=3, field="half")
    again = Reference.of(reversed(texts), file="", most=10, seed=3, field="half")
    assert found.prompts == again.prompts
    assert (found.total, found.labels) == (30, ("false", "true"))
    assert "10 of the 30" in found.said
    for prompt in found.prompts:
        donors = found.donors(prompt, 9, 0)
        assert len({one.text for one in donors} | {prompt.text}) == 10
    settled = Ablate(how="mean", texts=10, seed=3).settled(model("gpt2"), texts)
    assert settled.settled(model("gpt2"), texts[:2]) is settled
    assert aligned([4, 4, 1], [4, 7, 3], 5).tolist() == [
        [0, 1, 2, 3, 0],
        [0, 2, 4, 6, 0],
        [2, 0, 0, 0, 0],
    ]


def test_two_values_of_a_field_are_compared() -> None:
    """Paired over groups that have both, by scipy; Welch's otherwise; groups average first."""
    values, labels = [1.0, 2.0, 4.0, 7.0, 5.0, 9.0], ["a", "b"] * 3
    groups = ["x", "x", "y", "y", "z", "z"]
    one = compared(values, labels, groups)
    test = stats.ttest_rel(values[1::2], values[::2]).confidence_interval()
    assert one.paired
    assert one.difference is not None
    assert (one.difference.low, one.difference.high) == pytest.approx((test.low, test.high))
    two = compared([*values, 3.0, np.nan], [*labels, "b", "a"], [*groups, "x", "w"])
    assert two.paired
    assert two.means["b"].value == pytest.approx((2.5 + 7 + 9) / 3)
    other = compared(values, labels)
    test = stats.ttest_ind(values[1::2], values[::2], equal_var=False).confidence_interval()
    assert not other.paired
    assert other.difference is not None
    assert (other.difference.low, other.difference.high) == pytest.approx((test.low, test.high))
    assert compared(values, labels, labels).n == {"a": 3, "b": 3}


@pytest.mark.parametrize(
    ("settings", "prompts", "says"),
    [
        ({"what": "neurons"}, "a", "what is 'neurons': expected one of heads, mlp"),
        ({"each": "range"}, "a", "each=range of heads"),
        ({"layers": [0]}, "a", "layers is"),
        ({"layers": [9]}, "a", "no layer 9 to ablate: expected 1..3"),
        ({"draws": 0}, "a", "draws is 0"),
        ({}, "a", "has no target"),
        ({"metric": "kl", "how": "resample", "draws": 1}, "a", "0 other texts to resample from"),
        ({"metric": "kl", "compare": "kind"}, "a", "compare='kind' has 0 values"),
        ({"metric": "kl", "reference": "none.jsonl"}, "a", "no prompt file none.jsonl"),
    ],
)
def test_bad_input_is_one_line(settings: dict[str, Any], prompts: str, says: str) -> None:
    with pytest.raises(wb.WorkbenchError, match=re.escape(says)) as error:
        Ablate(**settings)(model("gpt2"), prompts)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("family", ["bert", "t5"])
def test_models_without_next_tokens_are_refused(family: str) -> None:
    with pytest.raises(wb.WorkbenchError, match="ablate needs a decoder"):
        Ablate(metric="kl")(model(family), "a b")


@pytest.mark.parametrize(
    ("what", "each", "panels"),
    [("heads", "layer", 6), ("mlp", "layer", 2), ("blocks", "range", 6)],
)
def test_figures_facts_and_report(what: str, each: str, panels: int) -> None:
    prompts = [
        wb.Prompt(f"text {i}", id=f"<b>{i}", target="Q", group=str(i // 2), labels={"old": i % 2})
        for i in range(8)
    ]
    result = Ablate(what=what, each=each, compare="old")(model("gpt2"), prompts)
    shown = result.plot()
    assert len([axis for axis in shown.to_plotly_json()["layout"] if "xaxis" in axis]) == panels
    assert "mean over 8 prompts" in shown.layout.annotations[-1].text
    one = result.plot(prompt="<b>1", selected=(2, 1))
    assert "&lt;b&gt;1" in one.layout.annotations[-1].text
    facts = Ablate.facts(result.data, layer=2, prompt="<b>1")
    assert [name.split(",")[0] for name, _ in facts] == ["Δ log p(target)", "Δ loss"]
    assert "control" in facts[0][1]
    section = Ablate.section(frame(result.rows()).lazy())
    loss = (result.data.loss - result.data.loss_clean).mean(("draw", "place"))
    assert abs(section.headlines[0].value) == pytest.approx(float(abs(loss).max()))
    strongest, both = section.listings
    assert "paired by group" in both.caption
    assert both.table.height == 2 * len(cells(what, each == "range"))
    assert len(strongest.table) == min(15, len(cells(what, each == "range")))


def test_shards_of_a_report_have_the_means_of_the_whole_set(tmp_path: Path) -> None:
    hooked = model("gpt2")
    prompts = [wb.Prompt(f"text {i} {'x' * i}", id=str(i), target="Q") for i in range(6)]
    ablate = Ablate(what="mlp", how="mean", texts=4, control=0)
    report(hooked, prompts, [ablate], tmp_path, shard_size=2)
    table = pl.read_parquet(tmp_path / "shards" / "*" / "ablate.parquet").sort("prompt", "layer")
    whole = pl.DataFrame(ablate(hooked, prompts).rows()).sort("prompt", "layer")
    for name in ("score", "loss"):
        assert table[name].to_list() == pytest.approx(whole[name].to_list(), **NEAR)


def test_values_of_a_reference_file_and_a_run_that_is_cancelled(tmp_path: Path) -> None:
    hooked, file = model("gpt2"), tmp_path / "texts.txt"
    file.write_text("Rome\nab cd\n", encoding="utf-8")
    found = Ablate(what="mlp", how="mean", layers=[2], reference=str(file))(hooked, PROMPTS[0])
    mean = torch.cat([hooked.capture(t, "mlp_out")["mlp_out", 2] for t in ("Rome", "ab cd")]).mean(
        0
    )
    loss, _ = by_definition(hooked, PROMPTS[0], [wb.Edit.set(("mlp_out", 2), mean)])
    assert found.rows()[0]["loss"] == pytest.approx(loss, **NEAR)
    assert "Means are of all 2 of texts.txt" in found.data.attrs["provenance"]
    seen: list[int] = []
    stop = Event()

    def watch(progress: Any) -> None:
        seen.append(progress.done)
        if 0 < progress.done < progress.total:
            stop.set()

    with pytest.raises(Cancelled):
        Ablate()(hooked, PROMPTS[:1], progress=watch, cancel=stop)
    assert 0 < seen[-1] < len(hooked.encode(PROMPTS[0]).ids)
