"""`lens=`: what stands in settings, keys, titles and files; stored activations; side by side."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import workbench as wb
from lenses import ImprintShift, LogitLens, side_by_side
from tests.lenses.fitted import jacobian, tuned
from tests.tiny import model
from workbench.jobs.keys import keys
from workbench.jobs.plain import instrument_of, plain_instrument
from workbench.settings import configure

PROMPT = wb.Prompt("The capital of France is", target=" Paris")


@pytest.fixture(scope="module")
def atlas() -> wb.Engine:
    return wb.load()


@pytest.fixture
def saved(atlas: wb.Engine, tmp_path: Path) -> Path:
    return tuned(atlas).save(tmp_path / "mine.safetensors")


def key_of(atlas: wb.Engine, lens: LogitLens) -> str:
    prompts = wb.PromptSet.of(PROMPT)
    return keys(atlas, prompts, [atlas.encode(PROMPT)], [lens])["logit_lens"]


def test_kind_and_hash_stand_in_the_settings_and_in_every_key(
    atlas: wb.Engine, saved: Path
) -> None:
    lens = LogitLens(lens=str(saved))
    digits = tuned(atlas).hash
    assert lens.settings()["lens"] == f"tuned_lens:{saved}#{digits}"
    assert instrument_of(json.loads(json.dumps(plain_instrument(lens)))).settings() == (
        lens.settings()
    )
    before = key_of(atlas, lens)
    assert key_of(atlas, LogitLens()) != before
    tuned(atlas, seed=1).save(saved)  # another lens in the same file
    assert key_of(atlas, LogitLens(lens=str(saved))) != before
    with pytest.raises(wb.SettingError, match=f"holds another lens by now .* is {digits}"):
        lens(atlas, PROMPT)
    with pytest.raises(wb.SettingError, match="holds another lens by now"):
        LogitLens(lens=f"{saved}#{digits}")
    saved.unlink()
    with pytest.raises(wb.SettingError, match="its file .* is gone"):
        lens(atlas, PROMPT)


def test_the_result_says_it_everywhere(atlas: wb.Engine, saved: Path) -> None:
    lens = configure("logit_lens", [f"lens={saved}"])
    result, digits = lens(atlas, PROMPT), tuned(atlas).hash
    assert result.provenance["settings"]["lens"].endswith(f"#{digits}")
    title = f"Tuned lens {digits[:8]}"
    assert result.plot().layout.yaxis.title.text == f"layer, read with {title}"
    assert {row["lens"] for row in result.rows()} == {title}
    assert ("read with", title) in LogitLens.facts(result.data, layer=2)
    assert "Belrose" in result.cite()
    assert "nostalgebraist" in LogitLens()(atlas, PROMPT).cite()
    both = wb.plot_layers([LogitLens()(atlas, PROMPT), result])
    assert [note.text for note in both.layout.annotations] == [
        "<b>Logit lens</b>",
        f"<b>{title}</b>",
    ]
    with pytest.raises(wb.ResultError, match="two results are called"):
        wb.plot_layers([result, result])


def test_stored_activations_give_the_same(atlas: wb.Engine, tmp_path: Path) -> None:
    assert isinstance(atlas, wb.TorchModel)
    store = wb.capture(atlas, [PROMPT], sites=["resid_post"], out=tmp_path / "acts")
    for lens in (tuned(atlas), jacobian(atlas)):
        live, (stored,) = (
            LogitLens(lens=lens)(atlas, PROMPT),
            wb.measure(store, [LogitLens(lens=lens)]),
        )
        np.testing.assert_array_equal(live.data.top_id, stored.data.top_id)
        # float32: a few roundings of log-probabilities of size 10
        np.testing.assert_allclose(live.data.kl, stored.data.kl, rtol=0, atol=2e-5)


def test_padding_and_batching_change_nothing() -> None:
    hooked = model("llama")
    lens = LogitLens(lens=tuned(hooked))
    texts = ["The Eiffel Tower", "x", "Rome is"]
    one = lens(hooked, texts, batch_size=1).data
    left = lens(hooked, texts, padding="left").data
    np.testing.assert_array_equal(one.top_id, left.top_id)
    np.testing.assert_allclose(one.kl, left.kl, rtol=0, atol=2e-5)


def test_side_by_side_aligns_tokens_and_curves(atlas: wb.Engine) -> None:
    lenses = ["logit", tuned(atlas), jacobian(atlas)]
    results = [LogitLens(lens=lens)(atlas, [PROMPT, "Rome"]) for lens in lenses]
    figure = side_by_side(results, position=2, layer=4)
    titles = [note.text for note in figure.layout.annotations]
    assert [title[3:8] for title in titles] == ["Logit", "Tuned", "Jacob", "Compa"]
    kl = {t.name: np.asarray(t.x, dtype=float) for t in figure.data if t.xaxis == "x4"}
    assert list(kl) == ["Logit lens", "Tuned lens", "Jacobian lens"]
    for result, own in zip(results, kl.values(), strict=True):
        at = result.data.isel(place=2)
        np.testing.assert_allclose(own, at.kl.values[0], rtol=1e-6)
    two = side_by_side([LogitLens(lens=tuned(atlas, seed))(atlas, PROMPT) for seed in (0, 1)])
    assert len({trace.name for trace in two.data if trace.xaxis == "x3"}) == 2
    for given, said in (
        ([], "no results"),
        ([results[0], results[0]], "expected results of a lens each"),
        (
            [results[0], LogitLens(lens=lenses[1])(atlas, "A b c")],
            "cells: ' c' at position 2 of 'A b",
        ),
        (
            [LogitLens()(atlas, "Rome is in"), LogitLens(lens=lenses[1])(atlas, "Vienna is in")],
            "of 'Rome is in', .* of 'Vienna is in'",
        ),
        ([results[0], LogitLens()(model("gpt2"), "Rome")], "different models"),
        ([LogitLens(sites=["mlp_out"])(atlas, "Rome")], "expected a logit-lens result"),
    ):
        with pytest.raises(wb.ResultError, match=said):
            side_by_side(given)


def test_what_cannot_be_read_is_refused(atlas: wb.Engine, tmp_path: Path) -> None:
    with pytest.raises(wb.SettingError, match="no lens file nowhere: expected logit"):
        LogitLens(lens="nowhere")
    with pytest.raises(wb.SettingError, match="cannot read sites attn_out; set sites=resid_post"):
        LogitLens(lens=tuned(atlas), sites=["resid_post", "attn_out"])
    with pytest.raises(wb.SettingError, match="lens is None"):
        LogitLens(lens=None)  # type: ignore[arg-type]
    with pytest.raises(wb.ModelError, match="was fitted on atlas in float32 .weights"):
        LogitLens(lens=tuned(atlas))(model("gpt2"), "Rome")
    with pytest.raises(wb.ModelError, match="in float32 .*, and this is atlas in bfloat16"):
        LogitLens(lens=tuned(atlas))(wb.load("atlas", dtype="bfloat16"), "Rome")


def test_a_lens_reads_an_edited_view_of_its_model_and_says_so(atlas: wb.Engine) -> None:
    lens = LogitLens(lens=tuned(atlas))
    with ImprintShift(3).of(atlas, PROMPT).on(atlas) as edited:
        seen = lens(edited, PROMPT)
    plain = lens(atlas, PROMPT)
    assert plain.provenance["remarks"] == []
    assert seen.provenance["remarks"] == [
        "the lens was fitted on the model without its changes of weights"
    ]
    before, after = (result.data["entropy"].isel(site=0).values for result in (plain, seen))
    assert np.array_equal(before[:3], after[:3])
    assert not np.allclose(before[3:, -1], after[3:, -1])
