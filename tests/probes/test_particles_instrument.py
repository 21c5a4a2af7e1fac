"""Particles: numbers by hand from Hugging Face's own states, controls, batches, words, refusals."""

from __future__ import annotations

import itertools
import json
import pickle
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import transformers
from sklearn.cluster import HDBSCAN, AgglomerativeClustering, KMeans
from sklearn.metrics import silhouette_score
from torch import Tensor

import workbench as wb
from probes import Particles
from probes.dynamics.theory import equiangular
from probes.particles import controls, corpus, measured
from probes.particles.bootstrap import resampled
from probes.particles.comparison import said
from probes.particles.controls import shuffled
from probes.particles.quantities import HARD, QUANTITIES
from probes.particles.report import section
from probes.particles.theory import plots
from tests.tiny import LAYERS, hf_model, model, tokenizer, tokenizer_of
from workbench.report.tables import frame
from workbench.settings import configure
from workbench.store.capture import capture

TEXTS = ["The Eiffel Tower stands", "Rome", "a b c d e f g h", "x"]
LINES = [f"line {n}: {'the sea and the hills of ' * (n % 2)}{n * n} words" for n in range(60)]
FEW = {"draws": 2, "seed": 5}


@pytest.fixture(scope="module")
def other_text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A corpus of short lines."""
    path = tmp_path_factory.mktemp("corpus") / "other.txt"
    path.write_text("\n".join(LINES), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def gpt2() -> wb.TorchModel:
    return wb.load(hf_model("gpt2"), tokenizer_of("gpt2"))


@pytest.fixture(scope="module")
def found(gpt2: wb.TorchModel, other_text: str) -> wb.Result:
    return Particles(corpus=other_text, **FEW)(gpt2, TEXTS)


def hf_states(hf: Any, text: str) -> Tensor:
    """[layers, n, d] by Hugging Face alone; the last state is taken before the final norm."""
    ids = torch.tensor([tokenizer()(text)["input_ids"]])
    caught: list[Tensor] = []
    hook = hf.transformer.ln_f.register_forward_pre_hook(lambda _, given: caught.append(given[0]))
    with torch.no_grad():
        states = list(hf(ids, output_hidden_states=True).hidden_states[:-1])
    hook.remove()
    return torch.cat([*states, caught[0]])


def composite(x: Tensor) -> float:
    norms = [float(torch.linalg.matrix_norm(x, order)) for order in (1, torch.inf)]
    return float(np.sqrt(np.prod(norms)))


def force(u: Tensor, beta: float) -> float:
    """Token by token."""
    lengths = []
    for one in u:
        mixed = (beta * (u @ one)).softmax(0) @ u
        lengths.append(float((mixed - (mixed @ one) * one).norm()))
    return float(np.mean(lengths))


def component(u: Tensor) -> tuple[np.ndarray, float]:
    """The first principal component by a singular value decomposition, and its share."""
    _, values, vectors = np.linalg.svd((u - u.mean(0)).numpy(), full_matrices=False)
    return vectors[0] * np.sign(vectors[0][np.abs(vectors[0]).argmax()]), float(
        values[0] ** 2 / (values**2).sum()
    )


def by_hand(states: Tensor, mean: Tensor | None = None) -> list[dict[str, float]]:
    """Numbers of each layer with loops over pairs."""
    numbers, before = [], None
    for layer, raw in enumerate(states):
        x = raw if mean is None else raw - mean[layer]
        u = [one / one.norm() for one in x]
        n, pairs = len(u), list(itertools.combinations(range(len(u)), 2))
        cosines = {pair: float(u[pair[0]] @ u[pair[1]]) for pair in pairs}
        both = cosines | {(j, i): value for (i, j), value in cosines.items()}
        shares = np.linalg.eigvalsh(np.array([[float(a @ b) for a in u] for b in u]) / n)
        shares = shares[shares > 1e-14]
        nearest = [max(both[i, j] for j in range(n) if j != i) for i in range(n)]
        residual = x - x.mean(0)
        numbers.append(
            {
                "mean_cosine": float(np.mean(list(cosines.values()))),
                "order_parameter": float(torch.stack(u).sum(0).norm()) / n,
                "participation_ratio": 1 / float((shares**2).sum()),
                "vendi": float(np.exp(-(shares * np.log(shares)).sum())),
                "concentration": float(np.mean(nearest)),
                "energy": (sum(np.exp(2 * v) for v in both.values()) + n * np.exp(2)) / (4 * n * n),
                "rank_residual": float(residual.norm() / x.norm()),
                "composite_residual": composite(residual),
                "composite_share": composite(residual) / composite(x),
                "spin_energy": -(float(torch.stack(u).sum(0).norm()) ** 2) / (2 * n * n),
                "force": force(torch.stack(u), 2.0),
                "component_share": component(torch.stack(u))[1],
                "tokens": float(n),
            }
        )
        if before is not None:
            moved = [float((a - b).norm() / b.norm()) for a, b in zip(x, before, strict=True)]
            numbers[-1]["step"] = float(np.mean(moved))
        before = x
    return numbers


def mean_by_hand(hf: Any) -> Tensor:
    """[layers, d] over all tokens of all lines."""
    return torch.cat([hf_states(hf, line) for line in LINES], dim=1).mean(1)


def agree(result: wb.Result, view: str, prompt: int, hand: list[dict[str, float]]) -> None:
    """To 1e-9: sums of at most a few hundred float64 numbers of a condition of at most 1e4."""
    for layer, numbers in enumerate(hand):
        cell = result.data.isel(prompt=prompt, draw=0).sel(view=view, layer=layer)
        for name, value in numbers.items():
            assert float(cell[name]) == pytest.approx(value, rel=1e-9, abs=1e-11), (name, layer)


def test_numbers_by_hand_from_hugging_face(gpt2: wb.TorchModel, other_text: str) -> None:
    result = Particles(corpus=other_text, views=["raw", "centred"], beta=2.0)(gpt2, TEXTS)
    mean = mean_by_hand(gpt2.hf)
    for prompt in (0, 1, 2):
        states = hf_states(gpt2.hf, TEXTS[prompt])
        agree(result, "raw", prompt, by_hand(states))
        agree(result, "centred", prompt, by_hand(states, mean))
    assert result.data.sizes["layer"] == LAYERS + 1


def test_a_twin_is_an_independent_model_of_the_configuration(
    gpt2: wb.TorchModel, found: wb.Result
) -> None:
    for draw in (0, 1):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5 + draw)
            own = transformers.GPT2LMHeadModel(deepcopy(gpt2.hf.config)).double().eval()
        hand = by_hand(hf_states(own, TEXTS[0]))
        centred = by_hand(hf_states(own, TEXTS[0]), mean_by_hand(own))
        one = found.data.isel(prompt=0, draw=draw)
        for layer in range(LAYERS + 1):
            for view, numbers in {"random": hand[layer], "random_centred": centred[layer]}.items():
                value = float(one["mean_cosine"].sel(view=view, layer=layer))
                # the twin is drawn in float32 and cast, as `own` is: only float64 sums differ
                assert value == pytest.approx(numbers["mean_cosine"], abs=1e-9)


def test_shuffled_tokens_are_the_same_tokens_in_another_order(
    gpt2: wb.TorchModel, found: wb.Result
) -> None:
    prompt = gpt2.encode(wb.Prompt(TEXTS[0]))
    orders = {shuffled(prompt, gpt2.tokens, seed).ids for seed in (5, 6)}
    assert len(orders) == 2
    for ids in orders:
        assert sorted(ids) == sorted(prompt.ids)
        assert ids != prompt.ids
    text = tokenizer().decode(shuffled(prompt, gpt2.tokens, 5).ids)
    agree(
        found,
        "shuffled",
        0,
        [
            {k: v for k, v in one.items() if k not in ("energy", "force")}
            for one in by_hand(hf_states(gpt2.hf, text))
        ],
    )


def test_special_tokens_stay_and_do_not_count(other_text: str) -> None:
    llama = model("llama")
    prompt = llama.encode(wb.Prompt(TEXTS[0]))
    assert shuffled(prompt, llama.tokens, 0).ids[0] == prompt.ids[0] == 256
    counts = {}
    for drop in ("default", "none"):
        data = Particles(drop=drop, views=["raw"])(llama, TEXTS[:1]).data
        counts[drop] = set(data["tokens"].values.ravel())
    assert counts == {"default": {len(TEXTS[0])}, "none": {len(TEXTS[0]) + 1}}


def test_sinks_are_left_out_and_counted() -> None:
    hf = hf_model("gpt2")
    with torch.no_grad():
        hf.transformer.wte.weight[tokenizer()("E")["input_ids"][0]] *= 1000
    loud = wb.load(hf, tokenizer())
    one = {
        drop: Particles(drop=drop, views=["raw"])(loud, TEXTS[:1]).data.isel(
            prompt=0, view=0, draw=0
        )
        for drop in ("default", "none")
    }
    assert one["default"]["sinks"].values.tolist() == [1.0] * (LAYERS + 1)
    assert one["default"]["tokens"].values.tolist() == [len(TEXTS[0]) - 1] * (LAYERS + 1)
    assert one["none"]["sinks"].values.tolist() == [0.0] * (LAYERS + 1)
    place = TEXTS[0].index("E")
    assert (Particles(views=["raw"])(loud, TEXTS[:1]).data["norm_ratio"][:, place] > 10).all()


@pytest.mark.parametrize("family", ["gpt2", "llama", "bert"])
def test_batches_and_padding_change_nothing(family: str, other_text: str) -> None:
    one, instrument = model(family), Particles(corpus=other_text, draws=1)
    alone = instrument(one, TEXTS, batch_size=1).data
    for padding in ("left", "right"):
        together = instrument(one, TEXTS, padding=padding).data
        for name in QUANTITIES:
            # float64 rounding of the model's own passes; components and counts are whole numbers
            np.testing.assert_allclose(
                together[name], alone[name], rtol=1e-7, atol=1e-9, err_msg=name
            )


def test_a_layer_at_a_time_as_all_at_once(
    gpt2: wb.TorchModel, other_text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    instrument = Particles(corpus=other_text, views=["raw", "centred"])
    whole = instrument(gpt2, TEXTS).data
    monkeypatch.setattr(measured, "CACHED", 1)
    monkeypatch.setattr(measured, "NUMBERS", 1)
    apart = instrument(gpt2, TEXTS).data
    for name in QUANTITIES:  # sums of float64 in another order, and logarithms of near distances
        np.testing.assert_allclose(apart[name], whole[name], rtol=1e-9, atol=1e-12, err_msg=name)


def test_engines_and_stores_give_the_same(gpt2: wb.TorchModel, tmp_path: Path) -> None:
    plain = Particles(views=["raw", "random", "shuffled"], draws=1)
    own = plain(gpt2, TEXTS[:2]).data
    again = wb.load(hf_model("gpt2"), tokenizer_of("gpt2"), engine="nnsight")
    for name in QUANTITIES:
        np.testing.assert_allclose(plain(again, TEXTS[:2]).data[name], own[name], atol=1e-9)
    store = capture(gpt2, TEXTS[:2], sites="resid_post", out=tmp_path / "acts")
    stored = wb.measure(store, [Particles()])[0]
    assert stored.data["view"].values.tolist() == ["raw"]
    np.testing.assert_allclose(stored.data["mean_cosine"][:, 0, 0], own["mean_cosine"][:, 0, 0])
    remarks = stored.provenance["remarks"]
    assert {it.split(":")[0] for it in remarks} == {
        f"no view {v}" for v in ("centred", "random", "shuffled")
    }
    with pytest.raises(wb.UnsupportedError, match="no view 'shuffled'"):
        wb.measure(store, [Particles(views=["shuffled"])])


def test_one_token_has_no_numbers_and_says_why(found: wb.Result) -> None:
    rows = [row for row in found.rows() if row["prompt"] == 3]
    assert len(rows) == 6 * (LAYERS + 1)
    for row in rows:
        assert row["note"] == "1 token counts, and pairs take 2"
        assert row["mean_cosine"] is row["order_parameter"] is row["components"] is None
        assert row["tokens"] == 1
    assert json.dumps(rows, allow_nan=False)
    assert "no numbers" in found.plot(prompt=3).layout.title.text
    facts = dict(Particles.facts(found.data, layer=1, prompt=3))
    assert facts["no numbers"] == "1 token counts, and pairs take 2"


def test_rows_are_means_over_draws_with_their_ends(found: wb.Result) -> None:
    rows = {(r["prompt"], r["layer"], r["view"]): r for r in found.rows()}
    drawn = found.data["mean_cosine"].isel(prompt=0).sel(view="shuffled", layer=2).values
    row = rows[0, 2, "shuffled"]
    ends = (row["mean_cosine"], row["mean_cosine_low"], row["mean_cosine_high"])
    assert ends == pytest.approx((drawn.mean(), drawn.min(), drawn.max()), rel=1e-12)
    assert row["draws"] == 2
    assert rows[0, 2, "raw"]["mean_cosine_low"] is None
    debiased = rows[0, 2, "raw"]["order_debiased"]
    assert debiased**2 == pytest.approx(max(0, rows[0, 2, "raw"]["mean_cosine"]), abs=1e-12)


def test_controls_of_large_models_are_left_out_and_said(
    gpt2: wb.TorchModel, monkeypatch: pytest.MonkeyPatch, other_text: str
) -> None:
    monkeypatch.setattr(controls, "LARGEST", int(1.5 * gpt2.n_parameters))
    result = Particles(corpus=other_text, draws=3)(gpt2, TEXTS[:1])
    drawn = result.data["mean_cosine"].notnull().isel(prompt=0, layer=1).sum("draw")
    assert int(drawn.sel(view="random")) == 1
    assert int(drawn.sel(view="shuffled")) == 3
    assert any(it.startswith("1 of 3 untrained twins") for it in result.provenance["remarks"])
    monkeypatch.setattr(controls, "LARGEST", 1)
    result = Particles(corpus=other_text)(gpt2, TEXTS[:1])
    assert "random" not in result.data["view"].values
    assert any(it.startswith("no of 3 untrained twins") for it in result.provenance["remarks"])
    asked = Particles(views=["random"], draws=1)(gpt2, TEXTS[:1])
    assert asked.data["view"].values.tolist() == ["raw", "random"]


def test_a_plan_counts_what_controls_cost(gpt2: wb.TorchModel) -> None:
    alone = wb.plan(gpt2, TEXTS[:1], [Particles(views=["raw"])]).block_tokens
    with_controls = wb.plan(gpt2, TEXTS[:1], [Particles(views=["random", "shuffled"], draws=2)])
    assert with_controls.block_tokens == 5 * alone


def test_the_corpus_is_named_kept_and_held_out(
    gpt2: wb.TorchModel, other_text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = wb.load(hf_model("gpt2"), tokenizer_of("gpt2"))
    Particles(corpus=other_text, views=["centred"])(gpt2, TEXTS[:1])
    monkeypatch.setattr(corpus, "_mean", lambda *_: pytest.fail("taken anew"))
    result = Particles(corpus=other_text, views=["centred"])(fresh, TEXTS[:1])  # equal weights
    named = f"{sum(map(len, LINES)):,} tokens of {Path(other_text).name} (token"
    assert named in result.provenance["remarks"][0]
    with pytest.raises(wb.SettingError, match="stands in the corpus"):
        Particles(corpus=other_text)(gpt2, LINES[:1])
    short = tmp_path / "short.txt"
    short.write_text("a few words", encoding="utf-8")
    with pytest.raises(wb.SettingError, match="holds 11 tokens: expected at least 1000"):
        Particles(corpus=str(short), views=["centred"])(gpt2, TEXTS[:1])
    with pytest.raises(wb.PromptError, match="none.txt"):
        Particles(corpus=str(tmp_path / "none.txt"))(gpt2, TEXTS[:1])


def test_means_follow_weights_written_in_place_and_views(other_text: str) -> None:
    """A settled instrument on one model object and its views: each is centred on its own mean."""
    own = wb.load(hf_model("gpt2"), tokenizer_of("gpt2"))
    settled = Particles(corpus=other_text, views=["centred"]).settled(own, [wb.Prompt(TEXTS[0])])
    before = settled(own, TEXTS[:1])
    vector = torch.ones(own.d_model, dtype=own.dtype)
    steered = own.with_steering([wb.Steer(("resid_post", 1), vector, 3.0)])
    of_view = settled(steered, TEXTS[:1])
    # the vector is in every state of layer 1 and in their mean, and so in none of their differences;
    # abs: float64 rounding of differences of states a few times as large
    same = [one.data["mean_cosine"].sel(layer=1).item() for one in (of_view, before)]
    assert same[0] == pytest.approx(same[1], abs=1e-9)
    with torch.no_grad():
        own.hf.transformer.wte.weight.data += torch.linspace(-1, 1, own.d_model)
    fresh = Particles(corpus=other_text, views=["centred"])(own, TEXTS[:1]).data
    again = pickle.loads(pickle.dumps(settled))  # noqa: S301
    for one in (settled, again):
        np.testing.assert_array_equal(one(own, TEXTS[:1]).data["mean_cosine"], fresh["mean_cosine"])
    assert not np.allclose(fresh["mean_cosine"], before.data["mean_cosine"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"drop": "all"}, "drop is 'all'"),
        ({"views": ["twin"]}, "views \\['twin'\\]: expected some of raw"),
        ({"views": None}, "left empty for their defaults"),
        ({"draws": 0}, "draws is 0"),
        ({"beta": float("inf")}, "beta is inf"),
        ({"beta": 701}, "beta is 701: expected a number above 0, at most 700"),
        ({"beta": "cold"}, "beta is 'cold'"),
        ({"beta": True}, "beta is True"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**32}, "seed is 4294967296: expected a whole number, at least 0 and below"),
        ({"expensive": 1}, "expensive is 1"),
    ],
)
def test_settings_are_checked(settings: Mapping[str, Any], message: str) -> None:
    with pytest.raises(wb.SettingError, match=message):
        Particles(**settings)


def test_drop_none_is_what_a_command_line_says() -> None:
    given = configure("particles", ["drop=none", "views=raw,centred", "corpus=", "draws=2"])
    assert given == Particles(drop="none", views=["raw", "centred"], draws=2)
    assert (
        configure("particles", ["drop=default", "views=", "positions=last"]).settings()["views"]
        == ()
    )


def test_energies_that_float32_cannot_hold() -> None:
    """At the largest beta: of n tokens at least the n pairs i = j of e^beta, at most all n^2."""
    single = wb.load(hf_model("gpt2").float(), tokenizer_of("gpt2"))
    found = Particles(views=["raw"], beta=700)(single, TEXTS[:1]).data
    logs = np.log(found["energy"].values.ravel()) - (700 - np.log(1400))
    # an exponent of 700 in float32 rounds at 3e-5
    assert (logs > -np.log(len(TEXTS[0])) - 1e-3).all()
    assert (logs < 1e-3).all()


def test_two_stacks_are_refused_by_name() -> None:
    t5 = wb.load(hf_model("t5"), tokenizer_of("t5"))
    with pytest.raises(wb.UnsupportedError, match="its start token alone"):
        Particles()(t5, TEXTS[:1])


# --- what is said of a prompt set ---------------------------------------------------------------


def synthetic(shift: float, prompts: int = 40) -> pl.DataFrame:
    """Rows of two layers whose mean cosine is `shift` above a twin's draws at layer 1, and alike at 0."""
    rng = np.random.default_rng(0)
    rows = []
    for prompt, layer in itertools.product(range(prompts), (0, 1)):
        level, noise = rng.normal(0.5, 0.2), rng.normal(0, 0.02)
        own = level + noise + shift * layer
        for view, value in (("raw", own), ("random", level)):
            ends = (None, None) if view == "raw" else (level - 0.03, level + 0.03)
            cell = dict.fromkeys(QUANTITIES, value) | {
                "prompt": prompt,
                "layer": layer,
                "view": view,
            }
            named = {
                f"{q}_{e}": v
                for q in ("mean_cosine", "order_parameter")
                for e, v in zip(("low", "high"), ends, strict=True)
            }
            rows.append(cell | named | {"draws": 3, "note": None})
    return frame(rows)


def test_words_follow_from_intervals_alone() -> None:
    (above,), (below,), (alike,) = (list(said(synthetic(shift))) for shift in (0.1, -0.1, 0.0))
    assert "above all draws of untrained twins at layer 1;" in above
    assert "below all draws of untrained twins at layer 1;" in below
    assert "not told apart from them at layer emb" in above
    assert alike == "Mean cosine, raw: not told apart from untrained twins at layers emb, 1."
    # within the twins' own draws, although the interval of the difference from their mean holds no 0
    (inside,) = said(synthetic(0.02))
    assert inside == alike
    (few,) = said(synthetic(0.1, prompts=5))
    assert "too few prompts" in few


def test_intervals_are_those_of_the_mean() -> None:
    values = np.random.default_rng(1).normal(2.0, 3.0, (400, 1))
    values[:100] = np.nan
    found = resampled(values)
    known = values[100:]
    half = 1.96 * known.std(ddof=1) / np.sqrt(300)
    assert found.n.tolist() == [300]
    assert found.value[0] == pytest.approx(known.mean(), rel=1e-12)
    # a normal interval; 2000 draws leave an end uncertain by about 4% of the half width
    assert found.low[0] == pytest.approx(known.mean() - half, abs=0.2 * half)
    assert found.high[0] == pytest.approx(known.mean() + half, abs=0.2 * half)


def test_report_says_what_differs_and_tables_everything(found: wb.Result) -> None:
    made = section(synthetic(0.1).lazy())
    assert any("above all draws" in remark for remark in made.remarks)
    difference = made.plots[-1].table.filter(pl.col("layer") == 1)
    assert difference["low"].item() < 0.1 < difference["high"].item()
    assert set(QUANTITIES) <= set(made.listings[0].table.columns)
    few = section(frame(found.rows()).lazy())
    assert "1 prompts have fewer than two tokens that count" in " ".join(few.remarks)
    assert all(one.low is None for one in few.headlines)


def test_prompts_without_numbers_in_a_control_do_not_shift_the_others() -> None:
    """One prompt has no numbers in the model's view, another none in the twin's: the rest are paired."""
    rows = synthetic(0.1)
    lacks = ((pl.col("view") == "raw") & (pl.col("prompt") == 0)) | (
        (pl.col("view") == "random") & (pl.col("prompt") == 39)
    )
    lacking = rows.with_columns(
        pl.when(lacks).then(None).otherwise(pl.col(name)).alias(name)
        for name in rows.columns
        if name.startswith("mean_cosine")
    )
    whole = rows.filter(pl.col("prompt").is_between(1, 38))
    last = {one.label: one for one in section(lacking.lazy()).headlines}
    expected = {one.label: one for one in section(whole.lazy()).headlines}
    label = "Mean cosine, raw, less that of untrained twins"
    # float64 sums of 38 numbers below 1
    assert last[label].value == pytest.approx(expected[label].value, abs=1e-12)
    assert last[label].n == 38


@pytest.mark.parametrize("way", [1, -1])
def test_report_lays_the_theory_over_the_curves(way: int) -> None:
    """Curves of the law itself fit; the same curves backwards fall, and do not."""
    starts = np.random.default_rng(0).uniform(0.05, 0.2, 12)
    curves = [equiangular(g, np.arange(7) * 0.3, 2.0, 12)[::way].tolist() for g in starts]
    cells = [
        {"prompt": prompt, "layer": layer, "view": view, "mean_cosine": value, "tokens": 12}
        | {"draws": 3 if view == "random" else 1}
        for prompt, curve in enumerate(curves)
        for layer in range(7)
        for view, value in (("raw", curve[layer]), ("random", 0.3))
    ]
    plot, *none = plots(frame(cells))
    assert not none
    assert plot.caption.startswith("The theory fits: " if way == 1 else "The theory does not fit: ")
    lines = dict(plot.table.group_by("line").agg(pl.col("value")).rows())
    assert list(lines["the model"]) == pytest.approx(np.mean(curves, 0).tolist())
    assert list(lines["untrained twins"]) == pytest.approx([0.3] * 7)
    assert ("falls" in plot.caption) is (way == -1)
    assert plots(frame(cells[: 7 * 14])) == []  # seven prompts


def test_figure_and_panels_draw_the_controls(found: wb.Result) -> None:
    figure = found.plot(prompt=0, selected=(2, 0))
    names = {trace.name for trace in figure.data if trace.showlegend}
    assert names == {
        "this prompt",
        "untrained twins (2 draws)",
        "shuffled tokens (2 draws)",
        "random directions, 1/√n",
    }
    own = next(trace for trace in figure.data if trace.name == "this prompt")
    rows = [r for r in found.rows() if r["prompt"] == 0 and r["view"] == "raw"]
    assert list(own.y) == [row["mean_cosine"] for row in rows]
    panels = {panel.name: panel for panel in Particles.panels(found.data, prompt=0)}
    assert list(panels) == ["cosine-raw", "cosine-centred", "clusters", "step"]
    assert [line.control for line in panels["cosine-raw"].lines.values()] == [False, True, True]
    facts = dict(Particles.facts(found.data, layer=2, prompt=0, position=1))
    assert "(twin " in facts["mean cosine, centred"]
    assert facts["norm of this token"].endswith("x the median")


def test_histograms_are_those_of_numpy_whatever_the_batch(
    gpt2: wb.TorchModel, other_text: str
) -> None:
    instrument = Particles(corpus=other_text, views=["raw", "centred"])
    data, mean = instrument(gpt2, TEXTS, padding="left").data, mean_by_hand(gpt2.hf)
    bins = {"bins": len(data["cosine"]), "range": (-1, 1)}
    for prompt in (0, 2):
        states = hf_states(gpt2.hf, TEXTS[prompt])
        for view, x in (("raw", states), ("centred", states - mean[:, None])):
            for layer, one in enumerate(x / x.norm(dim=-1, keepdim=True)):
                cosines = (one @ one.T).numpy()[np.triu_indices(len(one), 1)]
                along = (one @ torch.tensor(component(one)[0])).numpy()
                here = data.isel(prompt=prompt, draw=0, layer=layer).sel(view=view)
                for name, values in (("cosine", cosines), ("component", along)):
                    counted = np.histogram(values, **bins)[0] / len(values)
                    np.testing.assert_allclose(here[f"{name}_histogram"], counted, atol=1e-12)
                for q in (5, 50, 95):
                    # a quantile of few pairs is between two of them, which may be some bins apart
                    low, high = np.quantile(
                        cosines, [max(0, q / 100 - 0.03), min(1, q / 100 + 0.03)]
                    )
                    assert low - 0.05 <= float(here[f"cosine_{q}"]) <= high + 0.05
    assert data["cosine_histogram"].isel(prompt=3).isnull().all()  # one token
    alone = instrument(gpt2, TEXTS, batch_size=1).data
    for name in ("cosine_histogram", "component_histogram"):
        np.testing.assert_allclose(data[name], alone[name], atol=1e-12)
    cheap = Particles(corpus=other_text, views=["raw"], expensive=False)(gpt2, TEXTS).data
    np.testing.assert_allclose(
        cheap["cosine_histogram"][:, 0], alone["cosine_histogram"].sel(view="raw"), atol=1e-12
    )
    with pytest.raises(wb.ResultError, match="expected a result of expensive=True"):
        Particles.figure(cheap, shows="component")


def test_a_residual_is_alike_raw_and_centred(found: wb.Result) -> None:
    """By construction: R is of the states less their own mean. What it is a share of differs."""
    data = found.data.isel(prompt=0, draw=0)
    for name, alike in (("composite_residual", True), ("composite_share", False)):
        raw, centred = (data[name].sel(view=view) for view in ("raw", "centred"))
        # float64 rounding of states some times as large
        assert np.allclose(raw, centred, rtol=1e-9) is alike
    assert data["composite_residual"].attrs["unit"] == "length of states"


def test_figures_of_histograms(found: wb.Result) -> None:
    figure = found.plot(prompt=0, shows="cosines", selected=(1, 0))
    maps = [trace for trace in figure.data if trace.type == "heatmap"]
    assert len(maps) == 6  # raw and centred, of the prompt, its twins and its shufflings
    density = found.data["cosine_histogram"].isel(prompt=0).sel(view="random").mean("draw") * 20
    shown = np.array(maps[1].customdata, float).T
    np.testing.assert_allclose(shown, density, atol=1e-12)
    np.testing.assert_allclose(shown.sum(1) / 20, 1, rtol=1e-12)
    headings = [one.text for one in figure.layout.annotations]
    assert headings == [
        "<b>this prompt</b>",
        "<b>mean of 2 untrained twins</b>",
        "<b>shuffled tokens, mean of 2 orders</b>",
    ]
    assert figure.layout.yaxis.title.text == "cosine of two tokens, raw"
    assert len({shape.xref for shape in figure.layout.shapes}) == 3
    assert "share of tokens" in found.plot(prompt=2, shows="component").layout.title.text
    with pytest.raises(wb.ResultError, match="shows is 'all': expected one of order, cosines"):
        found.plot(shows="all")


def test_tokens_without_direction_are_said(gpt2: wb.TorchModel, other_text: str) -> None:
    """States of equal tokens without positions are the same, and their mean's too."""
    hf = hf_model("gpt2")
    with torch.no_grad():
        hf.transformer.wpe.weight.zero_()
        hf.transformer.wte.weight[tokenizer()("E")["input_ids"][0]] = 0.0
    silent = wb.load(hf, tokenizer_of("gpt2"))
    result = Particles(views=["raw"])(silent, TEXTS[:1])
    zeros = result.data["zeros"].isel(prompt=0, view=0, draw=0).values.tolist()
    assert zeros == [1.0] + [0.0] * LAYERS  # blocks have biases
    assert [row["zeros"] for row in result.rows()] == [1] + [0] * LAYERS
    assert result.rows()[0]["tokens"] == len(TEXTS[0]) - 1
    facts = dict(Particles.facts(result.data, layer=0))
    assert "1 without direction" in facts["tokens that count"]
    assert "up to 1 for having no direction" in result.plot().layout.title.text


def test_dimensions_of_few_tokens_are_left_out_and_that_is_said(found: wb.Result) -> None:
    row = found.rows()[0]
    assert row["intrinsic_dimension"] is None
    assert row["note"] == "no intrinsic dimension of fewer than 50 different tokens"
    facts = dict(Particles.facts(found.data, layer=1, prompt=0))
    assert facts["intrinsic dimension"] == row["note"]


def test_a_file_holds_it_all(found: wb.Result, tmp_path: Path) -> None:
    found.save(tmp_path / "found.nc")
    assert wb.Result.load(tmp_path / "found.nc").rows() == found.rows()


# --- hard clusters ------------------------------------------------------------------------------


def test_silhouette_of_kmeans_clusters_is_that_of_scikit_learn(
    gpt2: wb.TorchModel, other_text: str
) -> None:
    instrument = Particles(corpus=other_text, views=["raw", "centred"], clusters=3, seed=4)
    data, mean = instrument(gpt2, TEXTS).data, mean_by_hand(gpt2.hf)
    for prompt in (0, 2):
        states = hf_states(gpt2.hf, TEXTS[prompt])
        for view, x in (("raw", states), ("centred", states - mean[:, None])):
            points = (x / x.norm(dim=-1, keepdim=True)).numpy()
            for layer, u in enumerate(points):
                labels = KMeans(3, n_init=10, random_state=4).fit_predict(u)
                linked = AgglomerativeClustering(
                    None, metric="cosine", linkage="average", distance_threshold=0.5
                ).fit_predict(u)
                dense = HDBSCAN(min_cluster_size=5, copy=True).fit_predict(u)
                here = data.isel(prompt=prompt, draw=0, layer=layer).sel(view=view)
                assert here["agglomerative"] == linked.max() + 1
                assert here["hdbscan"] == dense.max() + 1
                assert here["hdbscan_noise"] == pytest.approx((dense < 0).mean(), abs=1e-12)
                score = silhouette_score(u, labels, metric="cosine")
                value = float(data["silhouette"].isel(prompt=prompt, draw=0).sel(view=view)[layer])
                assert value == pytest.approx(score, abs=1e-9), (view, layer)  # float64 sums
    few = data.isel(prompt=[3])  # one token
    assert all(few[name].isnull().all() for name in HARD)
    assert data["hdbscan"].isel(prompt=1, draw=0).isnull().all()  # four, and a cluster has five
    assert data["agglomerative"].isel(prompt=1, draw=0).notnull().all()
    with pytest.raises(wb.SettingError, match="clusters is 1: expected 0 for none, or at least 2"):
        Particles(clusters=1)


def test_clusters_stand_in_rows_facts_and_reports_and_are_off_unless_asked_for(
    gpt2: wb.TorchModel, found: wb.Result
) -> None:
    assert all(row[name] is None for row in found.rows() for name in HARD)
    asked = Particles(views=["raw", "random", "shuffled"], draws=2, clusters=2)(gpt2, TEXTS)
    rows = [row for row in asked.rows() if row["prompt"] == 2]
    assert {row["view"] for row in rows} == {"raw", "random", "shuffled"}
    assert all(-1 <= row["silhouette"] <= 1 for row in rows)
    facts = dict(Particles.facts(asked.data, layer=1, prompt=2))
    assert "(twin " in facts["silhouette of k-means clusters, raw"]
    table = section(frame(asked.rows()).lazy()).listings[0].table
    assert "silhouette" in table.columns
    assert "silhouette" not in section(frame(found.rows()).lazy()).listings[0].table.columns


def test_clusters_do_not_depend_on_padding(gpt2: wb.TorchModel) -> None:
    """Distinct tokens far apart: rounding of the passes moves no token to another cluster."""
    instrument = Particles(views=["raw"], clusters=2)
    alone = instrument(gpt2, TEXTS, batch_size=1).data
    for padding in ("left", "right"):
        together = instrument(gpt2, TEXTS, padding=padding).data
        for name in HARD:
            np.testing.assert_allclose(together[name], alone[name], rtol=1e-7, atol=1e-9)
