"""Ablations against weights set to zero, whole passes by the definition, and another library."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor

import workbench as wb
from probes import Ablate
from tests.tiny import LAYERS, hf_model, model, tokenizer_of
from workbench.models.hooks import attached

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
        for row in Ablate(what=what, ranges=ranges)(hooked, PROMPTS, padding="left").rows()
    }
    wanted = cells(what, ranges)
    assert len(found) == len(PROMPTS) * len(wanted)
    for prompt in PROMPTS:
        clean = by_definition(hooked, prompt)
        for first, last, head in wanted:
            edits = edit_of(hooked, what, first, last, head, lambda s, k: torch.zeros(2, 8)
                            if s == "z" else torch.zeros(16))
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
    row = Ablate(what="blocks", ranges=True)(hooked, prompt).rows()[LAYERS - 1]
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
            hooked, what, row["layer"], row["layer"], row["head"] or 0,
            lambda s, k: torch.cat(read[s, k]).mean(0),
        )
        loss, score = by_definition(hooked, PROMPTS[2], edits)
        assert row["loss"] == pytest.approx(loss, **NEAR)
        assert row["score"] == pytest.approx(score, **NEAR)
    # A set of one prompt: at each position the mean is the prompt's own value.
    for row in Ablate(what=what, how="mean", mean="position")(hooked, PROMPTS[0]).rows():
        assert row["effect"] == pytest.approx(0, abs=1e-9)
        assert row["loss_effect"] == pytest.approx(0, abs=1e-9)


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
        edits = [
            e
            for e in edit_of(
                hooked, what, row["layer"], row["layer"], row["head"] or 0,
                lambda s, k: other[s, k],
            )
        ]
        alone = hooked.intervene(pair[0], edits)["logits", LAYERS]
        target = hooked.encode(pair[0]).target
        assert row["score"] == pytest.approx(float(alone[-1].log_softmax(-1)[target]), **NEAR)
    same = [wb.Prompt("abcdef", target="Q", id="1"), wb.Prompt("abcdef ", target="Q", id="2")]
    several = Ablate(what=what, how="resample", draws=2)(
        hooked, [*pair, *same[1:]]
    )
    assert several.data.sizes["draw"] == 2
    row = several.rows()[0]
    drawn = several.data.score.values[0].reshape(-1, 2)[0]
    assert row["stderr"] == pytest.approx(drawn.std(ddof=1) / 2**0.5)
