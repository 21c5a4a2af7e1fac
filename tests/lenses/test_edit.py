"""The edit table against edits made one by one, and the prompts that it is made from."""

import math

import polars as pl
import pytest
import torch

import workbench as wb
from lenses import EditEffect, GradientStep, ImprintShift, counterfactuals
from tests.tiny import LAYERS, model
from workbench.atlas import prompts_path

FIELDS = {
    "paraphrases": ["e d c b", "x y"],
    "neighbours": [{"text": "k l", "target": "M"}, {"text": "n o p", "target": "QR"}],
}
PROMPTS = [
    wb.Prompt("a b c d", id="one", target="Q", foil="Z", extra=FIELDS),
    wb.Prompt("f", id="two", target="QRS", extra={"neighbours": FIELDS["neighbours"][:1]}),
]
SETTINGS = {"eta": [0.5, 2.0], "scale": "raw", "paraphrases": 2, "neighbours": 2}
METHODS = ("imprint_shift", "gradient", "random")


def logprob_rank(m: wb.Model, text: str, target: str) -> tuple[float, int]:
    """By the definition, from logits of the text with its target after it."""
    ids = torch.tensor([m.encode(wb.Prompt(text + target)).ids[-len(target) :]]).T
    logits = m.capture(text + target, "logits")["logits", LAYERS][-len(target) - 1 : -1]
    own = logits.gather(1, ids)
    ranks = (logits > own).sum(-1) + 1
    return float(logits.log_softmax(-1).gather(1, ids).sum()), int(ranks.max())


@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
def test_every_row_is_what_its_edit_does(family: str) -> None:
    """Passes that restart below the edit against whole ones; two prompts in a batch."""
    hooked = model(family)
    writer = hooked.weights.last_mlp_map
    rows = EditEffect(**SETTINGS, layers=[1, LAYERS])(hooked, PROMPTS).rows()
    assert len(rows) == (5 + 2) * 2 * 2 * 3  # cases, layers, etas, methods
    for row in rows:
        prompt = next(p for p in PROMPTS if p.id == row["prompt"])
        edit = ImprintShift(row["layer"], row["eta"], "raw").of(hooked, prompt)
        assert row["norm"] == pytest.approx(edit.norm)
        assert row["raw_eta"] == row["eta"]
        if row["method"] == "random":
            continue
        if row["method"] == "gradient":
            step = GradientStep([(writer, row["layer"])], 1.0).of(hooked, prompt)
            edit = step.times(edit.norm / step.norm)
        with edit.on(hooked) as edited:
            for when, m in (("before", hooked), ("after", edited)):
                logprob, rank = logprob_rank(m, row["text"], row["target"])
                # Norms and soft-caps of some families run in float32, rounded by the shape.
                assert row[f"target_logprob_{when}"] == pytest.approx(logprob, rel=1e-4, abs=1e-5)
                assert row[f"target_rank_{when}"] == rank
                if row["own"] is not None:
                    logprob, rank = logprob_rank(m, row["text"], row["own"])
                    assert row[f"own_logprob_{when}"] == pytest.approx(logprob, rel=1e-4, abs=1e-5)
                    assert row[f"own_rank_{when}"] == rank
        judged = "own" if row["kind"] == "neighbour" else "target"
        assert row["success"] is (row[f"{judged}_rank_after"] == 1)
        assert row["kept"] is (row["top_after"] == row["top_before"])


def test_batches_and_seeds_do_not_matter_but_to_the_random_direction() -> None:
    hooked = model("gpt2")
    settings = {"layers": [2], "eta": 1.0, "paraphrases": 2, "neighbours": 2}
    whole = EditEffect(**settings)(hooked, PROMPTS, padding="left").data
    for prompt in PROMPTS:
        alone = EditEffect(**settings)(hooked, prompt).data
        for name in alone.data_vars:
            if "place" in alone[name].dims:
                torch.testing.assert_close(
                    torch.tensor(alone[name].values[0]),
                    torch.tensor(whole.sel(place=whole.prompt == prompt.id)[name].values[0]),
                    equal_nan=True,
                )
    other = EditEffect(**settings, seed=1)(hooked, PROMPTS).data
    apart = abs(other["target_logprob_after"] - whole["target_logprob_after"])
    largest = apart.max(("place", "layer", "eta", "case"))
    assert float(largest.sel(edit="random")) > 0.01
    # The rounding of differently padded batches.
    assert float(largest.drop_sel(edit="random").max()) < 1e-9


def test_progress_is_told_after_each_prompt() -> None:
    settings = {"layers": [2], "eta": 1.0, "paraphrases": 2, "neighbours": 2}
    seen: list[wb.Progress] = []
    EditEffect(**settings)(model("gpt2"), PROMPTS, progress=seen.append)
    assert len(seen) == len(PROMPTS) + 1
    with pytest.raises(wb.SettingError, match="batch_size is 0"):
        EditEffect(**settings)(model("gpt2"), PROMPTS, batch_size=0)


def test_counterfactuals_of_atlas() -> None:
    facts = wb.PromptSet.read(prompts_path("facts"))
    drawn = counterfactuals(facts)
    assert list(drawn) == list(counterfactuals(facts))
    assert [p.id for p in counterfactuals(facts, prompts=7)] == [p.id for p in drawn[:7]]
    by_text = {p.text: p for p in facts}
    assert len(drawn) == len({p.group for p in drawn}) == len({p.group for p in facts})
    for prompt in drawn:
        source = by_text[prompt.text]
        assert (prompt.target, prompt.foil) == (source.foil, source.target)
        for text in prompt.extra["paraphrases"]:
            other = by_text[text]
            assert (other.subject, other.target) == (source.subject, source.target)
        assert len(prompt.extra["neighbours"]) == 8
        for near in prompt.extra["neighbours"]:
            other = by_text[near["text"]]
            assert other.target == near["target"] != prompt.target
            assert other.extra["relation"] == source.extra["relation"]
            assert other.subject != source.subject


def test_a_fact_without_a_relation_is_refused() -> None:
    fact = wb.Prompt("a b", subject="a", target="c", foil="d")
    with pytest.raises(wb.PromptError, match="has no relation: expected subject, target, foil"):
        counterfactuals(wb.PromptSet.of([fact]))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"neighbours": -1}, "neighbours is -1: expected a whole number, at least 0"),
        ({"prompts": -5}, "prompts is -5: expected a whole number, at least 1"),
    ],
)
def test_counts_of_counterfactuals_are_checked(asked: dict, message: str) -> None:
    with pytest.raises(wb.SettingError, match=message):
        counterfactuals(wb.PromptSet.read(prompts_path("facts")), **asked)


BAD = [
    ({"paraphrases": "x"}, "paraphrases is 'x': expected a list"),
    ({"paraphrases": [3]}, "paraphrase 3: expected a text"),
    ({"paraphrases": ["x", "y"]}, "has 2 paraphrases: expected at most 1; give paraphrases=2"),
    ({"neighbours": ["x"]}, "neighbour 'x': expected an object with text and target"),
    ({"neighbours": [{"text": "x"}]}, "expected an object with text and target"),
]


@pytest.mark.parametrize(("extra", "message"), BAD)
def test_bad_fields_are_refused_in_one_line(extra: dict, message: str) -> None:
    prompt = wb.Prompt("a b", target="c", extra=extra)
    with pytest.raises(wb.PromptError, match=message):
        EditEffect(layers=[1], paraphrases=1)(model("gpt2"), prompt)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layers": [9]}, "has no layer 9"),
        ({"layers": "some"}, "expected whole numbers, or all"),
        ({"layers": []}, "layers is \\(\\): expected distinct values"),
        ({"eta": (1.0, 1.0)}, "eta is \\(1.0, 1.0\\): expected distinct"),
        ({"eta": 0.0}, "eta is 0.0"),
        ({"eta": None}, "eta is None: expected one or several numbers"),
        ({"layers": None}, "layers is None: expected one or several numbers"),
        ({"seed": "a"}, "seed is 'a': expected a whole number"),
        ({"neighbours": -1}, "neighbours is -1"),
    ],
)
def test_bad_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(wb.SettingError, match=message):
        EditEffect(**settings)(model("gpt2"), PROMPTS[0])


@pytest.mark.parametrize(
    ("family", "message"),
    [("mixtral", "no linear map 'down'"), ("bert", "needs a decoder"), ("gemma2", "scale=raw")],
)
def test_models_that_cannot_be_edited_are_refused(family: str, message: str) -> None:
    with pytest.raises(wb.UnsupportedError, match=message):
        EditEffect()(model(family), PROMPTS[0])


def test_without_a_target_there_is_nothing_to_edit_in() -> None:
    with pytest.raises(wb.TargetError, match="has no target"):
        EditEffect(layers=[1])(model("gpt2"), "a b")


def test_figure_panels_facts_and_section_of_atlas() -> None:
    drawn = counterfactuals(wb.PromptSet.read(prompts_path("facts")), prompts=3, neighbours=2)
    result = EditEffect(layers=[3, 6], paraphrases=1, neighbours=2)(wb.load(), drawn)
    for prompt in (None, drawn[1].id):
        assert len(result.plot(prompt=prompt, selected=(3, 0)).data) > 8
    (panel, *_) = EditEffect.panels(result.data)
    assert panel.lines["random"].control
    said = dict(EditEffect.facts(result.data, layer=6))
    assert "imprint and shift" in said
    table = pl.DataFrame(result.rows())
    section = EditEffect.section(table.lazy())
    (shown,) = [listing.table for listing in section.listings]
    mean = table.filter(kind="neighbour", method="gradient", layer=6)["kept"].mean()
    row = shown.filter(pl.col("method") == "gradient step", pl.col("layer") == 6)
    assert row["neighbours kept"].item().startswith(f"{100 * float(mean):.0f}%")
    # A column "prompt" would be taken for names of prompts, and texts be put beside it.
    assert shown.columns[3:] == ["edited prompt", "paraphrases", "neighbours kept"]
    assert all(math.isfinite(h.value) for h in section.headlines)
    with pytest.raises(wb.ResultError, match="no eta 7"):
        result.plot(eta=7)
