"""Sparse probes of models: streamed equals in memory, any batching; what is refused; Atlas, its twin."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import workbench as wb
from lenses import LogitLens
from probes import SparseAutoencoder, SparseAutoencoderFit, SparseProbe
from probes.sparse.controls import online_code
from probes.sparse.family import family
from probes.sparse.found import KINDS
from probes.sparse.held_out import Examples, dense, direction, held_out
from probes.sparse.known import Known
from probes.sparse.labels import Labeller
from probes.sparse.makers import atlas_facts
from probes.sparse.passes import Columns, first_pass
from probes.sparse.rankers import rank, top
from probes.sparse.significance import max_t
from tests.tiny import model
from workbench.models.steering import Steer
from workbench.passes import finished, gather
from workbench.report import report
from workbench.report.planning import cost

K = (1, 3)
WORDS = ("cat", "dog", "a1", "42", "x9y", "Rome", "EU", "7 up", "no", "yes 3", "b", "of 12", "zz")


def prompts() -> wb.PromptSet:
    """26 prompts of 1 to 8 bytes, a group for two of them, labelled by a rule of their text."""
    texts = [f"{first}{word}" for word in WORDS for first in ("", "Q ")]
    return wb.PromptSet.of(
        [
            wb.Prompt(text, group=str(number // 2), labels={"odd": len(text) % 2})
            for number, text in enumerate(texts)
        ]
    )


def in_memory(
    hooked: wb.TorchModel, layer: int, feature: str, level: str
) -> tuple[torch.Tensor, Examples]:
    """All activations of a feature's examples, prompt by prompt, and what is known of them."""
    labeller = Labeller((feature,), level)  # type: ignore[arg-type]
    known = Known.of(hooked, prompts(), labeller, 0, 0).features[feature]
    acts = []
    for prompt in prompts():
        own = labeller.examples(hooked.encode(prompt), hooked.tokens, "")
        whole = hooked.capture([prompt], [("mlp_act", layer)])["mlp_act", layer]
        acts += [whole[example.positions[0]] for example in own]
    return torch.stack(acts), Examples(known.labels, known.groups, known.part)


@pytest.mark.parametrize(
    ("family", "level", "feature"), [("gpt2", "last", "odd"), ("llama", "all", "token:digit")]
)
def test_streamed_is_what_comes_of_all_activations_in_memory(
    family: str, level: str, feature: str
) -> None:
    """Units, figures and p values; float64, padding on the left, three prompts a batch."""
    hooked = model(family)
    probe = SparseProbe(k=K, token=level, features=feature, shortlist=8, permutations=60)  # type: ignore[arg-type]
    data = probe(hooked, prompts(), batch_size=3, padding="left").data
    for layer in (1, 3):
        acts, examples = in_memory(hooked, layer, feature, level)
        train = examples.train
        ranking = rank(acts[train], examples.labels[train])
        chosen = top(ranking, 8)
        probes = held_out(acts[:, chosen], ranking[chosen], examples, K)
        p = max_t(acts, examples.labels, examples.groups, permutations=60)
        for k, expected in probes.items():
            cell = data.sel(feature=feature, layer=layer, k=k)
            units = chosen[expected.strongest].tolist()
            assert cell["units"].values[:k].tolist() == units
            np.testing.assert_allclose(cell["f1"], expected.held_out.scores.f1, rtol=1e-9)
            np.testing.assert_allclose(cell["f1_low"], expected.held_out.low, rtol=1e-9)
            np.testing.assert_allclose(cell["threshold"], expected.held_out.threshold, rtol=1e-6)
            least = float(p[units].min())  # of one layer alone: the run's family is larger
            assert float(cell["p"]) >= least
        difference = acts[train & (examples.labels == 1)].mean(0)
        difference = difference - acts[train & (examples.labels == 0)].mean(0)
        straight = direction(acts @ difference, examples)
        found = data["direction_f1"].sel(feature=feature, layer=layer)
        np.testing.assert_allclose(found, straight.scores.f1, rtol=1e-9)


def test_p_values_are_those_of_all_units_of_all_layers_in_memory() -> None:
    hooked = model("gpt2")
    probe = SparseProbe(k=1, features="odd", shortlist=4, permutations=60)
    data = probe(hooked, prompts(), batch_size=5).data
    parts = [in_memory(hooked, layer, "odd", "last") for layer in (1, 2, 3)]
    every, examples = torch.cat([acts for acts, _ in parts], dim=1), parts[0][1]
    p = max_t(every, examples.labels, examples.groups, permutations=60)
    width = parts[0][0].shape[1]
    for number, layer in enumerate((1, 2, 3)):
        cell = data.sel(layer=layer, k=1).isel(feature=0)
        assert float(cell["p"]) == pytest.approx(float(p[number * width + int(cell["units"][0])]))


def test_control_and_code_are_what_comes_of_all_activations_in_memory() -> None:
    """The control task has units of its own; the code is of the probe's."""
    hooked, feature = model("gpt2"), "odd"
    probe = SparseProbe(k=K, token="all", features=feature, shortlist=8, permutations=0)
    data = probe(hooked, prompts()).data.sel(feature=feature, layer=2)
    acts, examples = in_memory(hooked, 2, feature, "all")
    known = Known.of(hooked, prompts(), Labeller((feature,), "all"), 0, 0).features[feature]
    assert known.control is not None
    task = Examples(known.control, known.groups, known.part)
    ranking = rank(acts[task.train], task.labels[task.train])
    chosen = top(ranking, 8)
    for k, expected in held_out(acts[:, chosen], ranking[chosen], task, K).items():
        cell = data.sel(k=k)
        np.testing.assert_allclose(cell["control_f1"], expected.held_out.scores.f1, rtol=1e-9)
        np.testing.assert_allclose(cell["selectivity"], cell["f1"] - cell["control_f1"])
        units = cell["units"].values[:k].tolist()
        code = online_code(acts[:, sorted(units)], examples.labels, examples.groups)
        np.testing.assert_allclose(cell["compression"], code, rtol=1e-6)


def test_activations_that_are_not_finite_are_refused_by_their_layer() -> None:
    hooked = model("gpt2")
    vector = torch.full((64,), torch.finfo(torch.float64).max, dtype=torch.float64)
    broken = hooked.with_steering([Steer(("mlp_act", 2), vector, 2.0)])
    with pytest.raises(wb.ModelError, match="mlp_act.*2.*not finite"):
        SparseProbe(k=1, layers=2, shortlist=4, permutations=0)(broken, prompts())


def test_shards_merge_into_one_pass_and_a_store_gives_the_same(tmp_path: Path) -> None:
    hooked, every = model("gpt2"), prompts()
    probe = SparseProbe(k=K, shortlist=8, permutations=20).settled(hooked, every)
    states = [
        gather(hooked, every.subset(part), [probe])[0].state
        for part in ([*range(9)], [*range(9, 26)])
    ]
    assert states[0] is not None
    assert states[1] is not None
    whole = probe(hooked, every).data
    merged = finished(probe, hooked, probe.merge(states[0], states[1])).data
    stored = wb.capture(hooked, every, sites=["mlp_act"], positions="last", out=tmp_path / "acts")
    for other in (merged, SparseProbe(k=K, shortlist=8, permutations=20)(stored, every).data):
        for name in whole.data_vars:
            np.testing.assert_allclose(other[name], whole[name], rtol=1e-6, err_msg=str(name))


def test_both_passes_are_planned_and_paced() -> None:
    """Of the same tokens; the fits after the second pass count, too, and a cancelled run stops there."""
    hooked, every = model("gpt2"), prompts()
    probe = SparseProbe(k=1, layers=3, shortlist=4, permutations=0)
    seen: list[wb.passes.Progress] = []
    wb.measure(hooked, every, [probe], progress=seen.append)
    shares = [one.done / one.total for one in seen]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0, 1)
    tokens = sum(len(hooked.encode(prompt)) for prompt in every)
    assert seen[0].total > 1.9 * tokens
    assert wb.plan(hooked, every, [probe]).block_tokens == 2 * seen_blocks(hooked, every)

    class Late:
        def is_set(self) -> bool:
            return len(seen) > before and seen[-1].done > tokens

    before = len(seen)
    with pytest.raises(wb.Cancelled, match="no result was made"):
        wb.measure(hooked, every, [probe], progress=seen.append, cancel=Late())


def seen_blocks(hooked: wb.TorchModel, every: wb.PromptSet) -> int:
    """Block-tokens of one pass that reads neurons of every layer."""
    read = LogitLens(sites=("mlp_out",), positions="last")
    return wb.plan(hooked, every, [read]).block_tokens


def test_a_bad_prompt_is_an_error_of_its_own_in_a_report(tmp_path: Path) -> None:
    """A label that is none, a text too long, a line twice: the others are measured as without them."""
    hooked = model("gpt2")
    bad = [
        wb.Prompt("c", group="a", labels={"odd": 7}),
        wb.Prompt("w" * 999, group="b", labels={"odd": 1}),
        *[wb.Prompt("twice", group="c", labels={"odd": 1})] * 2,
    ]
    probe = SparseProbe(k=1, shortlist=4, permutations=0)
    done = report(hooked, [*prompts(), *bad], [probe], tmp_path / "out", shard_size=7)
    assert (done.prompts, done.failed) == (30, 4)
    planned = cost(hooked, [*prompts(), *bad], [probe], shard_size=7)
    assert planned.unfit == 4
    assert planned.block_tokens > 0
    errors = [
        json.loads(line)["error"]
        for line in (tmp_path / "out" / "errors.jsonl").read_text().splitlines()
    ]
    expected = ["label 'odd' is 7: expected 0 or 1", "999 tokens", "repeats", "repeats"]
    assert all(part in said for part, said in zip(expected, errors, strict=True)), errors
    alone = probe(hooked, prompts()).data
    there = wb.Result.load(tmp_path / "out" / "sparse_probe.nc").data
    np.testing.assert_allclose(there["f1"], alone["f1"], rtol=1e-9)
    with pytest.raises(wb.PromptError, match="label 'odd' is 7"):
        probe(hooked, [*prompts(), bad[0]])


def test_a_prompt_that_fails_while_it_runs_is_left_out_of_the_second_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(kept: Any) -> Any:
        def run(*given: Any) -> Any:
            (captures,) = [one for one in given if isinstance(one, wb.Captures)]
            if any(one.prompt.text == text for one in captures.batch.prompts):
                raise wb.ModelError("activations that are not finite")
            return kept(*given)

        return run

    monkeypatch.setattr("probes.sparse.instrument.first_pass", failing(first_pass))
    monkeypatch.setattr(Columns, "update", failing(Columns.update))
    probe = SparseProbe(k=1, layers=2, shortlist=4, permutations=20)
    part = probe.settled(model("gpt2"), prompts())._known.features["odd"].part
    failed = next(number for number, one in enumerate(prompts()) if int(part[number]) == 2)
    text = prompts()[failed].text
    done = report(model("gpt2"), prompts(), [probe], tmp_path / "out", shard_size=9)
    assert done.failed == 1
    found = wb.Result.load(tmp_path / "out" / "sparse_probe.nc").data
    assert found[["f1", "p", "chance_low"]].notnull().all().to_array().all()
    assert int(found["histogram"].sel(rank=1).sum()) == len(prompts()) - 1


def test_units_by_themselves() -> None:
    """The first is the probe's of one unit, whose F1 is the threshold's on the unit alone."""
    hooked = model("gpt2")
    data = SparseProbe(k=K, shortlist=8, permutations=20)(hooked, prompts()).data
    one = data.isel(feature=0).sel(layer=2)
    acts, examples = in_memory(hooked, 2, "odd", "last")
    assert one["neuron"].values[0] == one["units"].sel(k=1, slot=1)
    np.testing.assert_allclose(one["neuron_f1"][0], one["f1"].sel(k=1), rtol=1e-9)
    np.testing.assert_allclose(one["neuron_p"][0], one["p"].sel(k=1))
    neuron = acts[:, int(one["neuron"][0])]
    for label in (0, 1):
        own = neuron[examples.labels == label].numpy()
        ends = float(neuron.min()), float(neuron.max())
        counts = np.histogram(own, bins=24, range=ends)[0]
        assert one["histogram"].sel(rank=1, label=label).values.tolist() == counts.tolist()
    assert (data["chance_low"] <= data["chance_high"]).all()


def test_classes_are_swapped_within_groups_that_are_pairs() -> None:
    result = SparseProbe(k=1, layers=2, shortlist=4, permutations=20)(model("gpt2"), endings(".!"))
    p = result.data.sel(layer=2, k=1)["p"]
    assert p.notnull().all()
    assert result.data["chance_low"].notnull().all()
    assert result.provenance["remarks"] == [
        "p of 'ends' by swapping the classes within groups, each of which has the same labels",
    ]


def test_uneven_groups_that_all_have_the_same_labels_have_no_p() -> None:
    """Exchanging them changes nothing: every p would be 1, and would say that nothing was found."""
    paired = endings(".!?")
    result = SparseProbe(k=1, layers=2, shortlist=4, permutations=20)(model("gpt2"), paired)
    p = result.data.sel(layer=2, k=1)["p"]
    assert p.sel(feature="ends").isnull()
    assert p.sel(feature="odd").notnull()
    assert result.data["chance_low"].sel(feature="ends").isnull().all()
    assert result.rows()[0]["p"] is None
    assert result.provenance["remarks"][0].startswith("no p value for 'ends': every group")
    alone = SparseProbe(k=1, layers=2, shortlist=4, permutations=20, features="odd")
    same = alone(model("gpt2"), paired).data["p"].values
    np.testing.assert_allclose(p.sel(feature="odd").values, same.item())


def endings(of: str) -> list[wb.Prompt]:
    """Each word with several ends, of which the second has the feature."""
    return [
        wb.Prompt(f"{word}{end}", group=word, labels={"ends": end == of[1], "odd": len(word) % 2})
        for word in WORDS
        for end in of
    ]


def test_sites_pools_and_dense() -> None:
    """Coordinates of the stream from layer 0 on; heads' outputs; spans pooled by their mean."""
    hooked = model("gpt2")
    data = SparseProbe(k=1, site="resid_post", permutations=0, dense=True)(hooked, prompts()).data
    assert data["layer"].values.tolist() == [0, 1, 2, 3]
    assert data["p"].isnull().all()
    assert data["dense_f1"].notnull().all()
    spans = [wb.Prompt(p.text, group=p.group, extra={"spans": [_span(p)]}) for p in prompts()]
    probe = SparseProbe(k=2, site="z", token="span", pool="mean", layers=2, permutations=0)
    assert probe(hooked, spans).data["f1"].shape == (1, 1, 1)


def _span(prompt: wb.Prompt) -> dict[str, object]:
    return {"start": 0, "end": len(prompt.text), "feature": "odd", "value": len(prompt.text) % 2}


def refused() -> Iterator[tuple[dict, list[wb.Prompt], str]]:
    """Settings, prompts, and what is said of them."""
    every = list(prompts())
    yield {}, [wb.Prompt("a"), wb.Prompt("b")], "no labels: expected prompts with labels or spans"
    yield {"features": "even"}, every, "no labels"
    yield {}, [wb.Prompt("a", labels={"x": 1})] * 2, "prompt 1 repeats prompt 0"
    yield {}, [wb.Prompt(t, labels={"x": 1}) for t in "abcd"], "feature 'x' has no negatives"
    yield {"k": 65}, every, "k is 65: mlp_act has 64 units at layer 1"
    yield {"k": 0}, every, "k is .*expected whole numbers, at least 1"
    yield {"layers": 9}, every, "has no layer 9"
    yield {"site": "q"}, every, "site is 'q': expected one of"
    yield {"ranker": "auc"}, every, "ranker is 'auc': expected one of mean_difference"
    yield {"token": "first"}, every, "token is 'first': expected one of last"


@pytest.mark.parametrize(("settings", "texts", "message"), list(refused()))
def test_what_is_refused(settings: dict, texts: list[wb.Prompt], message: str) -> None:
    with pytest.raises(wb.WorkbenchError, match=message):
        SparseProbe(**{"k": 1, **settings})(model("gpt2"), texts)


def test_two_stacks_are_refused() -> None:
    with pytest.raises(wb.UnsupportedError, match="has two stacks"):
        SparseProbe(k=1)(model("t5"), prompts())


def test_rows_figure_and_report(tmp_path: Path) -> None:
    hooked = model("gpt2")
    result = SparseProbe(k=K, shortlist=8, permutations=20)(hooked, prompts())
    rows = result.rows()
    assert len(rows) == 3 * len(K)
    keys = ["feature", "site", "layer", "k", "threshold", "f1", "f1_low", "f1_high", "p"]
    assert list(rows[0])[:11] == [*keys, "selectivity", "units"]
    assert all(len(row["units"]) == row["k"] == len(row["weights"]) for row in rows)
    shown = result.plot()
    np.testing.assert_allclose(shown.data[1].z, result.data["f1"].sel(k=3))
    assert shown.data[0].text[0][0].startswith(f"{rows[0]['f1']:.2f}".removeprefix("0"))
    assert [panel.name for panel in SparseProbe.panels(result.data)] == ["f1-1", "f1-3"]
    with pytest.raises(wb.ResultError, match="no k 2"):
        result.plot(k=2)
    one = result.plot(feature="odd")
    by_layer = {trace.name: trace.y for trace in one.data}
    np.testing.assert_allclose(by_layer["layer 2"], result.data["f1"].isel(feature=0).sel(layer=2))
    np.testing.assert_allclose(by_layer["k = 1 (95%)"], result.data["f1"].isel(feature=0, k=0))
    shares = result.plot(feature="odd", layer=2).data
    assert [round(sum(bars.y), 6) for bars in shares] == [1] * len(shares)
    with pytest.raises(wb.ResultError, match="layer 2 of which feature"):
        result.plot(layer=2)
    done = report(
        hooked, prompts(), [SparseProbe(k=K, permutations=20)], tmp_path / "out", shard_size=9
    )
    assert done.page is not None
    saved = wb.Result.load(tmp_path / "out" / "sparse_probe.nc")
    assert saved.rows()[0]["f1"] is not None


@pytest.fixture(scope="module")
def atlas_rows() -> dict[str, list[dict]]:
    """Which continent a prompt's subject is of, by eight units: of Atlas, and of its untrained twin."""
    chosen = [p for p in atlas_facts() if "continent=Asia" in p.labels]
    probe = SparseProbe(k=8, site="mlp_act", features="continent=Asia", permutations=100)
    atlas = wb.load()
    return {
        name: probe(one, chosen).rows() for name, one in (("atlas", atlas), ("twin", atlas.twin()))
    }


def test_atlas_has_neurons_for_a_continent_and_its_twin_is_at_the_baseline(
    atlas_rows: dict[str, list[dict]],
) -> None:
    best = {name: max(r["validation_f1"] for r in rows) for name, rows in atlas_rows.items()}
    found = {
        name: next(r for r in rows if r["validation_f1"] == best[name])
        for name, rows in atlas_rows.items()
    }
    assert found["atlas"]["p"] <= 0.05
    assert found["atlas"]["f1_low"] > max(found["twin"]["f1"], found["atlas"]["all_positive"])
    assert all(r["p"] > 0.05 for r in atlas_rows["twin"])
    assert found["twin"]["f1_low"] < found["twin"]["all_positive"]


@pytest.fixture(scope="module")
def sae_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SAE of resid_post at layer 2 of the tiny model, in float64 as the model is."""
    fit = SparseAutoencoderFit(layer=2, latents=20, k=3, steps=5, tokens=64, skip_first=0)
    made = fit(model("gpt2"), [p.text for p in prompts()])
    return made.save(tmp_path_factory.mktemp("sae") / "sae")


def test_latents_are_probed_beside_neurons_as_what_they_are_in_memory(
    sae_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Streamed a few prompts at once; neurons as without an SAE; one family of p values."""
    hooked = model("gpt2")
    monkeypatch.setattr("probes.sparse.sources.ELEMENTS", 3 * 20)
    settings = {"k": K, "token": "all", "features": "token:digit", "shortlist": 8, "dense": True}
    probe = SparseProbe(**settings, permutations=30, sae=str(sae_folder))  # type: ignore[arg-type]
    result = probe(hooked, prompts(), batch_size=7, padding="left")
    data = result.data
    assert data["site"].values.tolist() == ["mlp_act", "sae:resid_post"]
    sae = SparseAutoencoder.load(sae_folder)
    known = Known.of(hooked, prompts(), Labeller(("token:digit",), "all"), 0, 0)
    one = known.features["token:digit"]
    states = torch.cat(
        [hooked.capture([p], [("resid_post", 2)])["resid_post", 2] for p in prompts()]
    )
    acts = sae.encode(states)
    examples = Examples(one.labels, one.groups, one.part)
    ranking = rank(acts[examples.train], examples.labels[examples.train])
    chosen = top(ranking, 8)
    for k, expected in held_out(acts[:, chosen], ranking[chosen], examples, K).items():
        cell = data.sel(site="sae:resid_post", layer=2, k=k).isel(feature=0)
        assert cell["units"].values[:k].tolist() == chosen[expected.strongest].tolist()
        assert float(cell["f1"]) == pytest.approx(expected.held_out.scores.f1, rel=1e-9)
    straight = dense(states, examples)
    found = float(data["dense_f1"].sel(site="sae:resid_post", layer=2)[0])
    assert found == pytest.approx(straight.scores.f1, rel=1e-9)
    alone = SparseProbe(**settings, permutations=30)(hooked, prompts()).data  # type: ignore[arg-type]
    neurons = data.sel(site="mlp_act")
    for name in ("f1", "units", "dense_f1", "selectivity"):
        np.testing.assert_allclose(neurons[name], alone[name], rtol=1e-6)
    assert (neurons["p"] >= alone["p"]).all()  # the greatest of more units
    rows = result.rows()
    assert len(rows) == (3 + 1) * len(K)  # the SAE has one layer
    assert {row["site"] for row in rows} == {"mlp_act", "sae:resid_post"}
    lacking = data.sel(site="sae:resid_post", layer=1)
    assert all((lacking[name] == -1).all() for name in ("units", "neuron", "histogram"))
    # 3 layers of 64 neurons and one of 20 latents
    said = "192 neurons and 20 latents (resid_post), all probed layers, 1 feature"
    assert family(data) == said
    one = {"feature": "token:digit"}
    for shown in (result.plot(), result.plot(**one), result.plot(**one, layer=2)):
        assert said in shown.layout.title.text


def test_the_comparison_is_in_figure_panels_and_provenance(sae_folder: Path) -> None:
    hooked = model("gpt2")
    probe = SparseProbe(k=K, shortlist=8, permutations=0, dense=True, sae=str(sae_folder))
    result = probe(hooked, prompts())
    shown = result.plot()
    assert list(shown.data[0].y) == ["odd, neurons", "odd, latents (resid_post)"]
    assert shown.data[0].text[1][0] == ""  # no latents at layer 1
    np.testing.assert_allclose(shown.data[2].z[1][1], result.data["dense_f1"].values[1, 0, 1])
    lines = SparseProbe.panels(result.data)[0].lines  # type: ignore[union-attr]
    assert {"odd, neurons", "odd, latents (resid_post)", "dense, all of mlp_act"} <= set(lines)
    sae = SparseAutoencoder.load(sae_folder)
    assert result.provenance["settings"]["sae"] == [f"{sae_folder}#{sae.hash}"]
    assert result.provenance["remarks"][0].startswith(f"SAE {sae.hash[:8]} (topk, 20 latents)")
    assert (
        SparseProbe(sae=f"{sae_folder}#{sae.hash}").settings()
        == SparseProbe(sae=str(sae_folder)).settings()
    )


def test_dense_probes_of_what_an_sae_reads_stand_at_its_own_layer(sae_folder: Path) -> None:
    """Though the site itself is probed at another one."""
    probe = SparseProbe(
        k=1, site="resid_post", layers=3, permutations=0, dense=True, sae=str(sae_folder)
    )
    data = probe(model("gpt2"), prompts()).data
    (panel,) = SparseProbe.panels(data)
    found = panel.lines["dense, all of resid_post"].values
    assert found["layer"].values.tolist() == [2, 3]
    own = data["dense_f1"].isel(feature=0)
    expected = [float(own[1].sel(layer=2)), float(own[0].sel(layer=3))]
    assert found.values.tolist() == expected
    assert "no p values" in probe.figure(data).layout.title.text


@pytest.mark.parametrize("layers", [(), (1,)])
def test_beside_an_sae_one_goes_on_from_the_site_itself(
    sae_folder: Path, layers: tuple[int, ...]
) -> None:
    """With units of another number, and at layers that the site was not probed at, padded away."""
    hooked = model("gpt2")
    settings = {"k": K, "shortlist": 8, "permutations": 0, "layers": layers}
    beside = SparseProbe(**settings, sae=str(sae_folder))(hooked, prompts())  # type: ignore[arg-type]
    alone = SparseProbe(**settings)(hooked, prompts())  # type: ignore[arg-type]
    assert beside.layers == alone.layers
    assert beside.best_layer("odd") == alone.best_layer("odd")
    for layer in alone.layers:
        assert beside.units("odd", layer) == alone.units("odd", layer)
        for kind in KINDS:
            found, expected = (one.direction("odd", layer, kind) for one in (beside, alone))
            torch.testing.assert_close(found.vector, expected.vector, rtol=1e-6, atol=1e-9)
    longer = [prompt for prompt in prompts() if len(prompt.text) > 1]
    fewer = beside.ablate(hooked, longer, feature="odd", draws=2)
    assert fewer.data["layer"].values.tolist() == alone.layers


def test_units_that_are_not_there_are_not_drawn(sae_folder: Path) -> None:
    probe = SparseProbe(k=K, shortlist=8, permutations=0, sae=str(sae_folder))
    result = probe(model("gpt2"), prompts())
    assert result.plot(feature="odd", layer=2, site="sae:resid_post").data
    with pytest.raises(wb.ResultError, match="no units of sae:resid_post at layer 1"):
        result.plot(feature="odd", layer=1, site="sae:resid_post")


def test_a_plan_counts_the_second_pass_up_to_the_deepest_sae(sae_folder: Path) -> None:
    shared = {"k": 1, "permutations": 0, "layers": 1}
    few, more = (
        wb.plan(model("gpt2"), prompts(), [SparseProbe(**shared, sae=sae)]).block_tokens  # type: ignore[arg-type]
        for sae in ((), str(sae_folder))
    )
    assert more == 2 * few  # two passes of two blocks each in the place of two of one


def test_saes_that_are_refused(sae_folder: Path) -> None:
    for given, message in (
        ("jbloom/gpt2-res", "no cfg.json in jbloom/gpt2-res"),
        (f"{sae_folder}#{'0' * 16}", "expected 0000000000000000"),
        ([str(sae_folder)] * 2, "expected one SAE a site and layer"),
    ):
        with pytest.raises(wb.WorkbenchError, match=message):
            SparseProbe(sae=given)
    probe = SparseProbe(k=1, sae=sae_folder)
    with pytest.raises(wb.ModelError, match="was fitted on"):
        probe(model("gpt2").twin(), prompts())
    with pytest.raises(wb.SettingError, match="k is 30: sae:resid_post has 20 units at layer 2"):
        SparseProbe(k=30, sae=str(sae_folder))(model("gpt2"), prompts())
