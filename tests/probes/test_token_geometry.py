"""Token geometry: closed forms, the frozen order, the common directions, and what is drawn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

import workbench as wb
from probes import TokenGeometry
from probes.token_geometry.measured import cluster_order, mean_cosine, sphere, units
from tests.tiny import LAYERS, model

TEXT = "abcabcab<b>"


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Held-out text of a thousand tokens and more, which fits into the tiny context."""
    path = tmp_path / "corpus.txt"
    lines = [f"{number} {chr(97 + number % 26) * (number % 40)}" for number in range(60)]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_mean_cosine_is_that_of_pairs() -> None:
    u = units(drawn(2, 6, 5))
    pairs = [[float(a @ b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j] for x in u]
    # float64 sums of 30 terms
    np.testing.assert_allclose(mean_cosine(u), np.mean(pairs, axis=1), rtol=0, atol=1e-14)
    assert mean_cosine(u[:, :1]).isnan().all()


def test_the_directions_are_the_best_three() -> None:
    """Their squared lengths are the three largest eigenvalues of U^T U; rotation changes nothing."""
    u = units(drawn(4, 6, 9) + 1)
    found = sphere(u)
    flat = u.reshape(-1, 9)
    best = torch.linalg.eigvalsh(flat.T @ flat)[-3:].sum() / len(flat)
    # Lanczos to full convergence: eps times 24 terms
    assert float(found.captured.mean()) == pytest.approx(float(best), abs=1e-12)
    turned = sphere(u @ torch.linalg.qr(drawn(9, 9, seed=1))[0])
    torch.testing.assert_close(turned.points, found.points, rtol=0, atol=1e-9)  # over spectral gaps
    assert float(found.points.norm(dim=-1).max()) <= 1 + 1e-12
    narrow = sphere(units(drawn(4, 6, 2)))
    torch.testing.assert_close(narrow.captured, torch.ones(4, dtype=torch.float64))


def test_the_order_puts_clusters_together() -> None:
    centres = torch.eye(8, dtype=torch.float64)[:3].repeat(4, 1)  # a b c a b c ...
    u = units(centres + 0.05 * drawn(12, 8))
    order = cluster_order(u)
    assert sorted(order.tolist()) == list(range(12))
    groups = torch.arange(12)[order.argsort()] % 3
    assert int((groups[1:] != groups[:-1]).sum()) == 2
    assert cluster_order(u[:1]).tolist() == [0]


@pytest.mark.parametrize("family", ["gpt2", "llama", "bert"])
def test_cosines_are_those_of_the_states(family: str) -> None:
    hooked = model(family)
    made = TokenGeometry(order_layer=1, centred=False)
    data = made(hooked, [TEXT, "x"], padding="left").data
    for number, text in enumerate([TEXT, "x"]):
        here = data.isel(place=np.flatnonzero(data.prompt.values == number))
        states = hooked.capture(text, ["resid_post"]).stack("resid_post")
        n = states.shape[1]
        expected = torch.nn.functional.cosine_similarity(
            states[:, :, None], states[:, None], dim=-1, eps=0
        )
        # float64 products of width 16; batches are rounded otherwise
        np.testing.assert_allclose(here.cosine[0, ..., :n], expected, rtol=0, atol=1e-11)
        assert here.cosine[..., n:].isnull().all()
        assert sorted(here.order.values.tolist()) == list(range(n))
        np.testing.assert_allclose(here.norm, states.norm(dim=-1), rtol=1e-11)


def test_the_twin_stands_beside() -> None:
    hooked = model("gpt2")
    data = TokenGeometry(seed=3, centred=False)(hooked, TEXT).data
    states = hooked.twin(3).capture(TEXT, ["resid_post"]).stack("resid_post")
    np.testing.assert_allclose(
        data.mean_cosine_twin[0, :, 0], mean_cosine(units(states)), rtol=0, atol=1e-12
    )
    assert "mean_cosine_twin" not in TokenGeometry(twin=False, centred=False)(hooked, TEXT).data


def test_the_centred_view_takes_off_the_mean_of_other_text(corpus: Path) -> None:
    """And the twin's its own; a mean of the prompt itself would be minus one over n - 1 on average."""
    hooked = model("gpt2")
    data = TokenGeometry(corpus=str(corpus))(hooked, TEXT).data
    assert data.view.values.tolist() == ["raw", "centred"]
    for name, source in (("mean_cosine", hooked), ("mean_cosine_twin", hooked.twin(0))):
        texts = corpus.read_text(encoding="utf-8").split("\n")
        every = source.capture(texts, ["resid_post"]).stack("resid_post")
        states = source.capture(TEXT, ["resid_post"]).stack("resid_post")
        expected = mean_cosine(units(states - every.mean(1, keepdim=True)))
        # Means, float64 as the model is, differ by the order of a sum over all tokens; a centred state is
        # at least half as long as the mean, and a cosine has two of them.
        atol = 4 * every.shape[1] * torch.finfo(every.dtype).eps
        assert every.dtype == torch.float64
        np.testing.assert_allclose(data[name][1, :, 0], expected, rtol=0, atol=atol)
    with pytest.raises(wb.WorkbenchError, match="token_geometry: .* stands in .* centred=false"):
        TokenGeometry(corpus=str(corpus))(hooked, "1 b")


def test_a_store_suffices(tmp_path: Path) -> None:
    hooked = model("gpt2")
    store = wb.capture(hooked, [TEXT], sites="resid_post", out=tmp_path)
    stored = wb.measure(store, [TokenGeometry()])[0]
    assert "no twin" in stored.provenance["remarks"][0]
    live = TokenGeometry(twin=False, centred=False)(hooked, [TEXT])
    assert stored.data.drop_attrs(deep=False).identical(live.data.drop_attrs(deep=False))


def test_one_order_one_colour_and_a_frame_a_layer(corpus: Path) -> None:
    result = TokenGeometry(corpus=str(corpus))(model("gpt2"), TEXT)
    figure = result.plot(selected=(2, 1))
    assert [frame.name for frame in figure.frames] == [str(layer) for layer in range(LAYERS + 1)]
    assert [trace.visible for trace in figure.data[-4:]] == [False, False, True, True]
    colours = {
        tuple(part.hovertext[i].split("<br>")[1] for i in range(len(TEXT))): part.marker.color
        for frame in figure.frames
        for part in frame.data
    }
    assert len(colours) == 1  # the same tokens in the same order with the same colours everywhere
    heats = [trace for trace in figure.data if trace.type == "heatmap"]
    assert len(heats) == 2 * (LAYERS + 1)
    assert len({(heat.x, heat.y) for heat in heats}) == 1
    order = result.data.order.values.argsort()
    drawn_cosines = result.data.cosine.values.reshape(len(heats), len(TEXT), len(TEXT))
    for heat, own in zip(heats, drawn_cosines, strict=True):
        expected = own[np.ix_(order, order)]
        np.testing.assert_array_equal(heat.z, expected.astype("float32"))
    texts = json.dumps(figure.to_plotly_json(), default=str)
    assert "<b>" not in texts  # a token of this prompt each is escaped
    assert {trace.type for trace in figure.data} == {"heatmap", "scatter"}  # what the app can draw


def test_rows_panels_facts_and_section(corpus: Path) -> None:
    result = TokenGeometry(corpus=str(corpus))(model("gpt2"), [TEXT, "xyz"])
    rows = result.rows()
    assert len(rows) == 2 * (LAYERS + 1) * (len(TEXT) + 3)
    for row in rows:
        assert row["shown"] == pytest.approx(row["x"] ** 2 + row["y"] ** 2 + row["z"] ** 2)
        assert row["nearest_position"] != row["position"]
    lines, heat = TokenGeometry.panels(result.data, prompt=1, position=1)
    assert lines.lines["twin, centred"].control
    assert heat.values.sizes == {"layer": LAYERS + 1, "position": 3}
    facts = dict(TokenGeometry.facts(result.data, layer=1, prompt=1, position=1))
    assert facts["nearest token, raw"].split(" at ")[1][0] in "02"
    section = TokenGeometry.section(pl.LazyFrame(rows))
    assert len(section.headlines) == 4
    single = TokenGeometry(centred=False)(model("gpt2"), "x")
    assert single.rows()[0]["nearest"] is None
    assert TokenGeometry.section(pl.LazyFrame(single.rows())).plots == ()


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    hooked = model("gpt2")
    with pytest.raises(wb.WorkbenchError, match=r"order_layer is 9: expected 0\.\.3"):
        TokenGeometry(order_layer=9, centred=False)(hooked, "abc")
    monkeypatch.setattr("probes.token_geometry.instrument.MOST_TOKENS", 4)
    with pytest.raises(wb.WorkbenchError, match="5 tokens .* at most 4; set positions="):
        TokenGeometry(centred=False)(hooked, "abcde")
    with pytest.raises(wb.WorkbenchError, match="two stacks"):
        TokenGeometry(centred=False)(model("t5"), "abc")
