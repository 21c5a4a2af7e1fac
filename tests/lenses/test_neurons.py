"""Neurons against naive counts and sorts over all activations, in any split of the prompts."""

from pathlib import Path

import numpy as np
import pytest
import torch

import workbench as wb
from lenses import NeuronView
from lenses.neurons.state import bin_ends, key_of
from tests.tiny import LAYERS, model
from workbench.atlas import prompts_path
from workbench.passes import finished, gather
from workbench.report import report
from workbench.report.tables import frame

TEXTS = ["The Eiffel Tower", "Rome", "a b c d e f g h", "x", "The Eiffel", "zzzz", "a b c d"]
NEURONS = [3, 0, 11]
VIEW = NeuronView(layer=2, neurons=NEURONS, contexts=4, window=2, top_k=5)


def activations(hooked: wb.TorchModel, text: str) -> torch.Tensor:
    """[tokens, neurons] of one text by itself."""
    return hooked.capture(text, [("mlp_act", 2)])["mlp_act", 2]


@pytest.mark.parametrize("family", ["gpt2", "qwen2", "bert"])
def test_contexts_are_those_of_a_naive_sort(family: str) -> None:
    hooked, texts = model(family), TEXTS[:4] + TEXTS[5:6]  # none of them the beginning of another
    view = NeuronView(layer=2, neurons=NEURONS, contexts=4, window=2, readout="paper")
    found = view(hooked, texts, batch_size=3, padding="left")
    acts = {text: activations(hooked, text) for text in texts}
    ids = {text: list(hooked.encode(wb.Prompt(text)).ids) for text in texts}
    rows = [row for row in found.rows() if row["kind"] == "context"]
    for unit in NEURONS:
        peaks = [
            (
                -float(acts[text][:, unit].max()),
                key_of(ids[text]),
                int(acts[text][:, unit].argmax()),
                text,
            )
            for text in texts
        ]
        own = [row for row in rows if row["unit"] == unit]
        assert len(own) == 4
        for row, (value, _, position, text) in zip(own, sorted(peaks), strict=False):
            assert (texts[row["prompt"]], row["position"]) == (text, position)
            assert row["activation"] == pytest.approx(-value, rel=1e-6)
            near = range(max(0, position - 2), min(len(ids[text]), position + 3))
            assert [token for token, _ in row["window"]] == [
                hooked.tokens.text(ids[text][i]) for i in near
            ]
            expected = [float(acts[text][i, unit]) for i in near]
            assert [value for _, value in row["window"]] == pytest.approx(expected, rel=1e-6)


def test_the_histogram_counts_every_token_once() -> None:
    hooked = model("llama")
    data = VIEW(hooked, TEXTS).data
    acts = torch.cat([activations(hooked, text) for text in TEXTS])[:, NEURONS].numpy()
    low, high = map(np.array, bin_ends())
    assert np.isneginf(low[0])
    assert np.isposinf(high[-1])
    np.testing.assert_array_equal(low[1:], high[:-1])
    inside = (acts[..., None] > low) & (acts[..., None] <= high)
    np.testing.assert_array_equal(data["count"].values, inside.sum(0))
    assert (data["tokens"].values == len(acts)).all()
    for name, expected in {
        "mean": acts.mean(0),
        "low": acts.min(0),
        "high": acts.max(0),
        "positive": (acts > 0).mean(0),
    }.items():
        np.testing.assert_allclose(data[name].values, expected, rtol=1e-6)


@pytest.mark.parametrize("family", ["gpt2", "granite", "gemma2", "cohere"])
def test_value_vectors_are_read_as_a_direct_product(family: str) -> None:
    """The odd readout by its formula; of gemma2 and granite with what follows the map."""
    hooked = model(family)
    data = VIEW(hooked, TEXTS[:2]).data
    weights = hooked.weights
    vectors = weights.map(weights.last_mlp_map, 2).weight[NEURONS] * weights.multiplier
    if family == "gemma2":
        vectors = vectors * (
            1 + hooked.anatomy.part(2, "post_feedforward_layernorm").weight.detach()
        )
    norm = weights.final_norm(vectors)[1]
    centred = vectors - vectors.mean(-1, keepdim=True) if norm.centres else vectors
    unit = centred / centred.square().mean(-1, keepdim=True).sqrt()
    scores = (norm.gain * unit) @ weights.unembedding.weight.T
    for end, sign in enumerate((1, -1)):
        top = (sign * scores).topk(5)
        np.testing.assert_array_equal(data["value_id"].values[:, end], top.indices)
        np.testing.assert_allclose(data["value_score"].values[:, end], sign * top.values, rtol=1e-6)


def test_the_models_own_last_step_reads_both_ends_of_one_vector() -> None:
    hooked = model("gpt2")
    view = NeuronView(layer=2, neurons=NEURONS, top_k=5, readout="paper")
    data = view(hooked, TEXTS[:2]).data
    logits = hooked.readout(hooked.weights.neurons(2)[NEURONS])
    np.testing.assert_array_equal(data["value_id"].values[:, 0], logits.topk(5).indices)
    np.testing.assert_array_equal(data["value_id"].values[:, 1], (-logits).topk(5).indices)


@pytest.mark.parametrize(
    "view", [VIEW, NeuronView(layer=2, top=5, contexts=3)], ids=["given", "top"]
)
def test_any_split_of_the_prompts_merges_into_one_pass(view: NeuronView) -> None:
    """Prompt by prompt in any order, with one prompt twice: equal but for sums' rounding."""
    hooked, texts = model("gpt2"), wb.PromptSet.of([*TEXTS, TEXTS[0]])
    (whole,) = gather(hooked, texts, [view], batch_size=1)
    assert whole.state is not None
    random = torch.Generator().manual_seed(0)
    for _ in range(3):
        order = torch.randperm(len(texts), generator=random).tolist()
        cut = int(torch.randint(1, len(texts), (), generator=random))
        states = []
        for part in (order[:cut], order[cut:]):
            (one,) = gather(hooked, texts.subset(part), [view], batch_size=1)
            states.append(one.state)
        merged = view.merge(*states)
        for name, expected in whole.state.items():
            if name in ("sum", "size"):  # float64 sums in another order
                torch.testing.assert_close(merged[name], expected, rtol=1e-12, atol=1e-12)
            else:
                assert merged[name].equal(expected) or torch.equal(
                    merged[name].nan_to_num(nan=7.0), expected.nan_to_num(nan=7.0)
                ), name
        apart, once = finished(view, hooked, merged).data, whole.result().data
        np.testing.assert_array_equal(apart["neuron"], once["neuron"])
        np.testing.assert_array_equal(apart["value_id"], once["value_id"])


def test_the_top_neurons_write_most() -> None:
    hooked = model("llama")
    data = NeuronView(layer=2, top=3)(hooked, TEXTS).data
    acts = torch.cat([activations(hooked, text) for text in TEXTS])
    written = acts.abs().mean(0) * hooked.weights.neurons(2).norm(dim=1)
    np.testing.assert_array_equal(data["neuron"], written.argsort(descending=True)[:3])
    np.testing.assert_allclose(data["written"], written.sort(descending=True).values[:3], rtol=1e-6)


def test_equal_activations_go_to_the_first_position() -> None:
    """Of a model without position embeddings, in a text of one token over and over."""
    hooked = model("bloom")
    hooked_text = "aaaa"
    acts = activations(hooked, hooked_text)
    data = NeuronView(layer=2, neurons=[1], contexts=2)(hooked, [hooked_text] * 2).data
    assert data["context_position"].values.tolist() == [[int(acts[:, 1].argmax())] * 2]


def test_left_out_positions_have_tokens_but_no_activations() -> None:
    hooked = model("gpt2")
    found = NeuronView(layer=2, neurons=[1], window=3, positions="last")(hooked, "abcd").rows()
    (row,) = [row for row in found if row["kind"] == "context"]
    assert [token for token, _ in row["window"]] == list("abcd")
    assert [value is None for _, value in row["window"]] == [True, True, True, False]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layer": 0}, "has no layer 0"),
        ({"neurons": [64]}, "no neuron 64 in layer 1: expected 0..63"),
        ({"neurons": None}, "neurons: None: expected indices"),
        ({"neurons": [1, 1]}, "expected distinct indices"),
        ({"neurons": [-1]}, "expected distinct indices"),
        ({"top": 65}, "top is 65: layer 1 has 64 neurons"),
        ({"top_k": 300}, "the vocabulary has 257"),
        ({"contexts": 0}, "contexts is 0: expected a whole number, at least 1"),
        ({"contexts": 10**9}, "contexts=1000000000 with window=8 of 64 neurons take .* GiB"),
        ({"readout": "x"}, "readout is 'x': expected one of odd"),
    ],
)
def test_bad_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(wb.SettingError, match=message):
        NeuronView(**settings)(model("gpt2"), "a")


@pytest.mark.parametrize(
    ("family", "message"),
    [
        ("mixtral", "mixtral has no linear map 'down'"),
        ("bert", "no linear map.*give readout=paper"),
    ],
)
def test_models_without_such_neurons_are_refused(family: str, message: str) -> None:
    with pytest.raises(wb.UnsupportedError, match=message):
        NeuronView(layer=LAYERS)(model(family), "a")


def test_an_encoder_and_a_decoder_have_the_decoders_neurons() -> None:
    data = NeuronView(layer=2, neurons=[1], contexts=2)(model("t5"), TEXTS[:3]).data
    assert data["tokens"].item() == 3


def test_figure_and_section_through_report_shards(tmp_path: Path) -> None:
    """Three shards' report holds what one pass gives; every neuron has its page."""
    prompts = wb.PromptSet.read(prompts_path("classics"))
    view, atlas = NeuronView(layer=4, top=2, contexts=5), wb.load()
    done = report(atlas, prompts, [view], tmp_path / "out", shard_size=6)
    assert done.page is not None
    shards, once = wb.Result.load(tmp_path / "out" / "neurons.nc"), view(atlas, prompts)
    for name in ("neuron", "count", "context_key", "value_id"):
        np.testing.assert_array_equal(shards.data[name], once.data[name])
    drawn = once.plot(neuron=int(once.data["neuron"][1]))
    assert [trace.visible for trace in drawn.data] == [False] * 3 + [True] * 3
    assert str(int(once.data["neuron"][1])) in drawn.layout.title.text
    section = NeuronView.section(frame(once.rows()).lazy(), once.data)
    assert section.listings[0].table.height == section.listings[1].table.height == 2
    with pytest.raises(wb.ResultError, match="no neuron -1"):
        once.plot(neuron=-1)
