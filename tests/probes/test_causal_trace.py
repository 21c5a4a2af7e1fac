"""The instrument: its variables, what it settles from a set, any batching, and what it refuses."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import workbench as wb
from probes import CausalTrace, SpanTrace
from probes.causal.contrast import Contrast
from probes.causal.corruption import subject_std
from probes.causal.effects import effects
from probes.causal.roles import ROLES, role_of
from probes.tracing.grid import cells_of
from tests.tiny import model

CLOSE = {"atol": 1e-6, "rtol": 1e-5}  # results are stored in float32


def asked(**fields: Any) -> wb.Prompt:
    return wb.Prompt("abcdefgh", **{"subject": "cde", "target": "x"} | fields)


def test_variables_are_what_they_say() -> None:
    hooked, prompt = model("gpt2"), asked(foil="y")
    trace = CausalTrace(noise_std=0.2, samples=4, window=2, metric="logprob")
    data = trace(hooked, prompt).data
    encoded = hooked.encode(prompt)
    contrast = Contrast.by_noise(hooked, [encoded], std=3 * 0.2, samples=4, seed=0)
    cell = cells_of("mlp_out", 2, 4, 2, 3)
    found = effects(hooked, contrast, [cell], metric="logprob")
    here = data.sel(site="mlp_out", layer=2).isel(place=4)
    score, corrupted = found.patched[0, 0], found.corrupted[0]
    gained = score - corrupted
    expected = {
        "score": score,
        "effect": gained.mean(),
        "stderr": gained.std() / 2,
        "normalised": (score.mean() - corrupted.mean()) / (found.clean[0] - corrupted.mean()),
        "clean": found.clean[0],
        "corrupted": corrupted,
        "total": found.clean[0] - corrupted.mean(),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(here[name].values, value.numpy(), **CLOSE)
    top = hooked.capture("abcdefgh", ("logits",), "last")["logits", 3].argmax()
    assert int(here["top_id"]) == int(top)
    assert int(here["correct"]) == int(top == encoded.target)
    assert [ROLES[i] for i in data["role"].values] == [
        *["before_subject"] * 2,
        "first_subject",
        "middle_subject",
        "last_subject",
        "first_after",
        "further",
        "last",
    ]
    assert data["score"].attrs["unit"] == "nat"


def test_noising_puts_corrupted_values_into_the_clean_run() -> None:
    trace = CausalTrace(noise_std=0.2, samples=2, window=1, metric="logprob", direction="noising")
    data = trace(model("gpt2"), asked()).data
    whole = data["score"].sel(site="resid_post", layer=3).isel(place=-1)
    np.testing.assert_allclose(whole, data["corrupted"].isel(place=-1), **CLOSE)
    effect = data["effect"].sel(site="resid_post", layer=3).isel(place=-1)
    np.testing.assert_allclose(effect, -data["total"].isel(place=-1), **CLOSE)
    kept = data["normalised"].sel(site="resid_post", layer=3).isel(place=0)
    assert float(kept) == pytest.approx(1.0)


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_prompt_is_traced_the_same_in_any_batch(family: str, padding: Any) -> None:
    prompts = [
        asked(),
        wb.Prompt("hello, hgfedcba", subject="gfe", target="y"),
        wb.Prompt("hgfedcba", subject="gfe", target="ab"),
        wb.Prompt("abcdefgh", subject="b", target="z"),
    ]
    trace = CausalTrace(noise_std=0.2, samples=2, window=2, metric="logprob")
    together = trace(model(family), prompts, padding=padding).data
    for number, prompt in enumerate(prompts):
        alone = trace(model(family), prompt).data
        of_it = together.isel(place=np.flatnonzero(together["prompt"].values == number))
        for name in ("score", "effect", "clean", "corrupted", "role", "group"):
            np.testing.assert_allclose(of_it[name].values, alone[name].values, **CLOSE)


def test_a_plan_says_what_a_trace_will_cost() -> None:
    hooked = model("gpt2")
    prompts = [asked(), wb.Prompt("hgfedcba", subject="gfe", target="yz"), asked(subject="b")]
    trace = CausalTrace(noise_std=0.2, samples=2, metric="logprob")
    plan = wb.plan(hooked, prompts, [trace])
    data = trace(hooked, prompts).data
    first = [int((data["prompt"].values == number).argmax()) for number in range(3)]
    assert plan.block_tokens == sum(int(data["block_tokens"][i]) for i in first)
    other = [asked(corrupted="abXYZfgh")]
    plan = wb.plan(hooked, other, [CausalTrace()])
    assert plan.block_tokens == int(CausalTrace()(hooked, other).data["block_tokens"][0])


def test_positions_are_parts_of_the_whole() -> None:
    trace = CausalTrace(noise_std=0.2, samples=2, window=2, metric="logprob")
    whole = trace(model("gpt2"), asked()).data
    part = replace(trace, positions="last_subject")(model("gpt2"), asked()).data
    np.testing.assert_allclose(part["score"][0], whole["score"][4], **CLOSE)


def test_what_is_left_open_is_taken_from_the_set() -> None:
    hooked = model("gpt2")
    prompts = [asked(foil="y"), wb.Prompt("hgfedcba", subject="gfe", target="y", foil="x")]
    settled = CausalTrace().settled(hooked, prompts)
    ids = [hooked.tokens.ids(part) for part in ("cde", "gfe")]
    rows = hooked.embedding[torch.tensor([i for part in ids for i in part])]
    assert settled.noise_std == pytest.approx(float(rows.std()))
    assert (settled.metric, settled.corruption) == ("logit_difference", "noise")
    assert (settled.window, settled.algorithm) == (1, "wave")
    assert settled.settled(hooked, prompts[:1]) is settled
    assert CausalTrace().settled(hooked, [asked()]).metric == "probability"
    replaced = [asked(corrupted="abXYZfgh")]
    assert CausalTrace().settled(hooked, replaced).corruption == "replace"
    assert CausalTrace()(hooked, prompts).provenance["settings"]["noise_std"] == settled.noise_std


def test_another_text_needs_no_subject() -> None:
    data = CausalTrace()(model("gpt2"), asked(subject=None, corrupted="abXYZfgh")).data
    assert data.sizes["sample"] == 1
    assert set(data["role"].values) == {-1}
    assert data["stderr"].isnull().all()


def test_a_total_effect_of_about_0_has_no_shares() -> None:
    data = CausalTrace(noise_std=1e-7, metric="logprob", samples=2)(model("gpt2"), asked()).data
    assert data["normalised"].isnull().all()
    assert data["effect"].notnull().all()


def test_given_states_are_the_corrupted_run() -> None:
    hooked = model("gpt2")
    encoded = hooked.encode(asked())
    contrast = Contrast.by_noise(hooked, [encoded], std=0.6, samples=2, seed=0)
    trace = CausalTrace(sites=["resid_post"], metric="logprob", window=1)
    given = trace.traced(hooked, asked(), contrast.corrupted[0])
    noised = replace(trace, noise_std=0.2, samples=2)(hooked, asked()).data
    expected = noised["score"].transpose("site", "layer", "place", "sample").values
    np.testing.assert_allclose(given.patched[:, 0].numpy(), expected.reshape(-1, 2), **CLOSE)
    same = trace.traced(hooked, asked(), contrast.clean[0])
    torch.testing.assert_close(same.patched[:, 0, 0], same.clean.expand(24), atol=1e-12, rtol=0)


def test_the_embedding_is_a_layer_of_states_alone() -> None:
    trace = CausalTrace(layers=[0, 1], noise_std=0.2, samples=2, window=1, metric="logprob")
    data = trace(model("gpt2"), asked(subject="c")).data
    there = data["score"].sel(layer=0).notnull().any(("place", "sample"))
    assert dict(zip(data["site"].values, there.values, strict=True)) == {
        "resid_post": True,
        "mlp_out": False,
        "attn_out": False,
    }
    # The one noised token restored before block 1: nothing is left of the noise.
    whole = data["normalised"].sel(site="resid_post", layer=0).isel(place=2)
    assert float(whole) == pytest.approx(1.0)


def test_a_long_trace_tells_how_far_it_is_and_can_be_cancelled() -> None:
    told: list[wb.Progress] = []
    stop = threading.Event()

    def progress(done: wb.Progress) -> None:
        told.append(done)
        if done.done > 0:
            stop.set()

    trace = CausalTrace(noise_std=0.2)
    with pytest.raises(wb.Cancelled, match="cancelled after 0 of 8 tokens"):
        trace(model("gpt2"), asked(), progress=progress, cancel=stop)
    assert 0 < told[-1].done < 8


REFUSED = [
    (asked(subject=None), {}, wb.PromptError, "has no subject: give one"),
    (asked(subject="zz"), {}, wb.PromptError, "'zz' occurs 0 times"),
    (
        wb.Prompt("ab ab ab", subject="ab", target="x"),
        {},
        wb.PromptError,
        r"occurs 3 times \(at characters 0, 3, 6\)",
    ),
    (asked(target=None), {}, wb.TargetError, "has no target: give one, or metric=kl"),
    (asked(), {"metric": "logit_difference"}, wb.TargetError, "has no foil"),
    (
        asked(foil="x"),
        {"metric": "logit_difference"},
        wb.TargetError,
        "the same token as target and foil",
    ),
    (asked(corrupted="abc"), {}, wb.PromptError, "has 3 tokens and its prompt 8"),
    (asked(corrupted="abcdefgh"), {}, wb.PromptError, "has the prompt's own tokens"),
    (asked(), {"corruption": "replace"}, wb.PromptError, "has no corrupted text"),
    (
        asked(),
        {"window": 4},
        wb.SettingError,
        "window is 4: expected a whole number of blocks, 1..3",
    ),
    (asked(), {"layers": [4]}, wb.SettingError, r"layer 4: expected whole numbers, 0\.\.3"),
    (asked(), {"layers": []}, wb.SettingError, "layers is .*: expected at least one"),
    (asked(), {"positions": []}, wb.SettingError, r"positions \(\) are none of the 8 of prompt"),
    (asked(), {"positions": slice(8, None)}, wb.SettingError, "are none of the 8 of prompt"),
]


@pytest.mark.parametrize(("prompt", "settings", "error", "said"), REFUSED)
def test_what_cannot_be_traced_is_refused_by_name(
    prompt: wb.Prompt, settings: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        CausalTrace(**settings)(model("gpt2"), prompt)


BAD = [
    ({"noise": 0.0}, "noise is 0.0: expected a number above 0, or nothing is corrupted"),
    ({"noise_std": 0.0}, "noise_std is 0.0"),
    ({"noise_std": "x"}, "noise_std is 'x'"),
    ({"noise_std": float("inf")}, "noise_std is inf"),
    ({"samples": 0}, "samples is 0: expected a whole number, at least 1"),
    ({"sites": ["mlp"]}, "sites is 'mlp': expected some of resid_post"),
    ({"sites": []}, "sites is empty"),
    ({"direction": "both"}, "direction is 'both': expected one of denoising, noising"),
    ({"metric": "loss"}, "metric is 'loss': expected one of auto, probability"),
]


@pytest.mark.parametrize(("settings", "said"), BAD)
def test_settings_that_say_nothing_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(wb.SettingError, match=said):
        CausalTrace(**settings)


def test_a_subject_that_cuts_a_token_is_refused() -> None:
    atlas = wb.load()
    prompt = wb.Prompt("The capital of France is", subject="ranc", target=" Paris")
    with pytest.raises(
        wb.PromptError, match="subject 'ranc' .* cuts a token: .* those of 'France'"
    ):
        CausalTrace(metric="probability")(atlas, prompt)


def test_a_subject_that_is_part_of_a_word_is_said_beside_the_numbers() -> None:
    atlas = wb.load()
    text = "The Eiffel Tower is located in the city of"
    part, whole = (wb.Prompt(text, subject=one, target=" Paris") for one in ("iffel", "Eiffel"))
    trace = CausalTrace(layers=6, positions="subject", samples=1)
    said = "The subject 'iffel' is part of 'Eiffel'"
    found = trace(atlas, part)
    assert found.provenance["remarks"] == [said]
    assert said in "".join(str(one.text) for one in found.plot().layout.annotations)
    assert trace(atlas, whole).provenance["remarks"] == []
    assert trace(atlas, [whole, part]).provenance["remarks"] == [
        "Subjects are parts of words in 1 of 2 prompts: 'iffel' is part of 'Eiffel'"
    ]
    assert SpanTrace(samples=1, spans=1, share=9)(atlas, part).provenance["remarks"][-1] == said


@pytest.mark.parametrize("layers", [0, [0]])
def test_windows_alone_at_the_embedding_are_refused(layers: Any) -> None:
    trace = CausalTrace(layers=layers, sites="mlp_out,attn_out", noise_std=0.2, metric="logprob")
    with pytest.raises(wb.SettingError, match="has no mlp_out or attn_out: expected one of 1..3"):
        trace(model("gpt2"), wb.Prompt("abcdefgh", subject="cde", target="x"))


@pytest.mark.parametrize("family", ["bert", "t5"])
def test_models_that_are_no_causal_decoders_are_refused(family: str) -> None:
    with pytest.raises(wb.UnsupportedError, match="is no causal decoder"):
        CausalTrace()(model(family), asked())


def test_a_wave_on_an_engine_without_blocks_is_refused() -> None:
    atlas = wb.load(engine="nnsight")
    with pytest.raises(wb.SettingError, match="the nnsight engine has no single blocks"):
        CausalTrace(algorithm="wave")(atlas, asked())


def test_prompts_of_which_only_some_have_another_text_are_refused() -> None:
    with pytest.raises(wb.PromptError, match="has no corrupted text and others have one"):
        CausalTrace()(model("gpt2"), [asked(), asked(corrupted="abXdefgh")])


def test_prompts_of_one_subject_are_a_group_however_it_is_given() -> None:
    spans = [asked(), asked(subject=(2, 5)), wb.Prompt("ab cde", subject=(2, 6), target="x")]
    other = wb.Prompt("hgfedcba", subject=(2, 5), target="x")
    trace = CausalTrace(noise_std=0.2, samples=1, sites=["resid_post"], positions="last")
    group = trace(model("gpt2"), [*spans, other]).data["group"].values
    assert len(set(group[:3])) == 1
    assert group[3] != group[0]


def test_roles_of_short_subjects() -> None:
    """One token is the last of its subject; at the prompt's end it stays the subject's."""
    names = [ROLES[role_of(i, 4, 1, 1)] for i in range(4)]
    assert names == ["before_subject", "last_subject", "first_after", "last"]
    assert [ROLES[role_of(i, 3, 1, 2)] for i in range(3)][1:] == ["first_subject", "last_subject"]
    assert ROLES[role_of(2, 3, 0, 1)] == "last"


def test_noise_is_that_of_all_subjects_where_some_cannot_be_placed() -> None:
    hooked = model("gpt2")
    some = [asked(), asked(subject="zz")]
    assert subject_std(hooked, some) == subject_std(hooked, some[:1])
