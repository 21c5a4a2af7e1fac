"""The streamed lens against the naive one, which holds every logit."""

import math

import numpy as np
import pytest
import torch
import xarray as xr

import workbench as wb
from lenses import LogitLens
from lenses.logit.lens import settling_layer
from lenses.vocabulary import statistics, top_k
from tests.tiny import FAMILIES, LAYERS, TEXTS, hf_model, model, tokenizer

K = 4
# Float32 arithmetic inside norms; log-probabilities of size ~10.
ATOL = 2e-5


def naive(hooked: wb.TorchModel, site: str, targets: list[int | None]) -> dict[str, torch.Tensor]:
    """Every statistic from logits [layer, place, V], by the definitions."""
    caught = hooked.capture(TEXTS, [site, ("resid_post", LAYERS)])
    states = caught.stack(site)
    with torch.no_grad():
        logits = torch.stack([hooked.readout(state) for state in states])
        final = hooked.readout(caught["resid_post", LAYERS]).log_softmax(-1)
    logp = logits.log_softmax(-1)
    mixture = ((logp.exp() + final.exp()) / 2).log()
    ids = torch.tensor([-1 if t is None else t for t in targets])[caught.places.row]
    score = logits.gather(-1, ids.clamp_min(0).expand(len(states), -1)[..., None])
    top = logp.topk(K)
    return {
        "top_id": top.indices,
        "top_logprob": top.values,
        "entropy": -(logp.exp() * logp).sum(-1),
        "kl": (final.exp() * (final - logp)).sum(-1),
        "js": ((final.exp() * (final - mixture)).sum(-1) + (logp.exp() * (logp - mixture)).sum(-1))
        / 2,
        "target_rank": torch.where(ids < 0, math.nan, (logits > score).sum(-1) + 1.0),
        "target_logprob": torch.where(
            ids < 0,
            math.nan,
            logp.gather(-1, ids.clamp_min(0).expand(len(states), -1)[..., None])[..., 0],
        ),
        "norm": states.norm(dim=-1),
    }


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("site", ["resid_post", "resid_pre", "resid_mid"])
def test_streamed_equals_naive(family: str, site: str) -> None:
    hooked = model(family)
    if site == "resid_mid" and hooked.anatomy.parallel:
        with pytest.raises(wb.UnsupportedError, match="no resid_mid"):
            LogitLens(sites=[site])(hooked, TEXTS)
        return
    targets = [65, None, 256, 0]
    prompts = [wb.Prompt(text, target=t) for text, t in zip(TEXTS, targets, strict=True)]
    data = LogitLens(top_k=K, sites=[site])(hooked, prompts).data.sel(site=site)
    begin = 0 if site == "resid_post" else 1
    assert (data.top_id.values[:begin] == -1).all()
    for name, expected in naive(hooked, site, targets).items():
        found = data[name].values[begin:]
        if name == "top_id":
            assert (found == expected.numpy()).all()
        else:
            np.testing.assert_allclose(
                found, expected, rtol=0, atol=ATOL, equal_nan=True, err_msg=name
            )


@pytest.mark.parametrize("family", FAMILIES)
def test_lens_of_the_last_block_is_the_models_own_distribution(family: str) -> None:
    hooked = model(family)
    data = LogitLens(top_k=257)(hooked, TEXTS[0]).data.sel(site="resid_post", layer=LAYERS)
    ids = torch.tensor([hooked.encode(wb.Prompt(TEXTS[0])).ids])
    with torch.no_grad():
        own = hooked.hf(ids, use_cache=False).logits[0].log_softmax(-1)
    found = torch.from_numpy(data.top_logprob.values)
    torch.testing.assert_close(
        found, own.gather(1, torch.from_numpy(data.top_id.values)), rtol=0, atol=ATOL
    )
    assert (data.kl == 0).all() or float(data.kl.max()) < ATOL


def test_divergences_can_be_left_out() -> None:
    prompt = wb.Prompt(TEXTS[0], target=65)
    full = LogitLens()(model("llama"), prompt).data
    lean = LogitLens(divergences=False)(model("llama"), prompt).data
    assert lean.kl.isnull().all()
    assert lean.js.isnull().all()
    xr.testing.assert_identical(
        lean.drop_vars(["kl", "js"]).drop_attrs(), full.drop_vars(["kl", "js"]).drop_attrs()
    )


def test_contributions_have_a_norm_but_no_entropy_or_divergence() -> None:
    hooked = model("gemma2")
    data = LogitLens(sites=["mlp_out", "attn_out"])(hooked, TEXTS[0]).data
    for name in ("entropy", "kl", "js"):
        assert data[name].isnull().all()
    caught = hooked.capture(TEXTS[0], ["mlp_out"])
    norms = data.norm.sel(site="mlp_out", layer=slice(1, None))
    np.testing.assert_allclose(norms, caught.stack("mlp_out").norm(dim=-1), rtol=1e-6)
    assert data.norm.sel(layer=0).isnull().all()


def test_settling_and_peak_layers_on_a_hand_made_model() -> None:
    """States that are one-hot logits: the top token by layer is 1, 2, 3, 3 and 3, 3, 3, 3."""
    tops = torch.tensor([[1, 3], [2, 3], [3, 3], [3, 3]])
    final = torch.tensor([3, 3])
    assert settling_layer(tops[None], final).tolist() == [[2, 0]]
    assert settling_layer(tops[None, :1], final).tolist() == [[-1, 0]]
    hooked = model("gpt2")
    data = LogitLens()(hooked, wb.Prompt(TEXTS[0], target=65)).data.sel(site="resid_post")
    best = data.target_logprob.argmax("layer")
    assert (data.target_peak_layer == best).all()
    xr.testing.assert_allclose(
        data.target_peak_logprob.drop_attrs(), data.target_logprob.max("layer").drop_attrs()
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_statistics_of_known_distributions(dtype: torch.dtype) -> None:
    """Uniform over 8, and one token with everything: entropies ln 8 and 0, JS = ln 2 nearly."""
    uniform, certain = torch.zeros(1, 8, dtype=dtype), torch.zeros(1, 8, dtype=dtype)
    certain[0, 5] = 200.0
    followed = torch.tensor([[5], [-1]])
    found = statistics([uniform, certain], certain, torch.clone, k=2, followed=followed)
    assert found.entropy[:, 0].tolist() == pytest.approx([math.log(8), 0], abs=1e-6)
    assert found.kl[:, 0].tolist() == pytest.approx([math.log(8), 0], abs=1e-6)
    mixture = [1 / 16] * 7 + [9 / 16]
    expected = -sum(m * math.log(m) for m in mixture) - math.log(8) / 2
    assert found.js[:, 0].tolist() == pytest.approx([expected, 0], abs=1e-6)
    assert found.rank[0, :, 0].tolist() == [1, 1]
    assert found.rank[1].isnan().all()


def test_excluded_tokens_leave_the_other_numbers_alone() -> None:
    """A logit of -inf: in both distributions it does not matter, in the layer alone KL is infinite."""
    left, right = torch.randn(2, 3, 50, generator=torch.Generator().manual_seed(0)).double()
    shut = left.clone()
    shut[:, 7] = -torch.inf
    none = torch.empty(0, 3, dtype=torch.int64)
    found = statistics([shut, left], shut, torch.clone, k=3, followed=none)
    p, q = shut.softmax(-1), left.softmax(-1)
    torch.testing.assert_close(found.entropy[0], torch.special.entr(p).sum(-1), rtol=0, atol=1e-12)
    assert found.kl[0].abs().max() < 1e-12
    torch.testing.assert_close(
        found.kl[1], torch.special.xlogy(p, p / q).sum(-1), rtol=0, atol=1e-12
    )
    other = statistics([shut], right, torch.clone, k=3, followed=none)
    assert other.kl.isposinf().all()
    mixture = (p + right.softmax(-1)) / 2
    expected = torch.special.entr(mixture).sum(-1)
    expected -= (torch.special.entr(p) + torch.special.entr(right.softmax(-1))).sum(-1) / 2
    torch.testing.assert_close(other.js[0], expected, rtol=0, atol=1e-12)


def test_logits_that_are_not_numbers_are_refused_by_name() -> None:
    hf = hf_model("gpt2")
    hooked = wb.load(hf, tokenizer())
    with torch.no_grad():
        hf.transformer.h[1].mlp.c_proj.bias[0] = torch.nan
    with pytest.raises(
        wb.ModelError, match="logits of resid_post, layer 2, position 0 of 'The Eiffel"
    ):
        LogitLens()(hooked, TEXTS[0])


def test_contributions_and_states_settle_on_the_models_own_token() -> None:
    hooked = model("gpt2")
    data = LogitLens(sites=["resid_pre", "mlp_out"])(hooked, TEXTS[0]).data
    whole = LogitLens()(hooked, TEXTS[0]).data.sel(site="resid_post")
    assert (data.settling_layer.sel(site="mlp_out") == -1).all()
    settled = whole.settling_layer.values
    expected = np.where(settled < LAYERS, settled + 1, -1)  # resid_pre of block l is layer l - 1
    assert (data.settling_layer.sel(site="resid_pre").values == expected).all()


def test_jensen_shannon_is_symmetric_and_at_most_ln_2() -> None:
    left, right = torch.randn(2, 5, 100, generator=torch.Generator().manual_seed(0)) * 20
    none = torch.empty(0, 5, dtype=torch.int64)
    one = statistics([left], right, torch.clone, k=1, followed=none)
    other = statistics([right], left, torch.clone, k=1, followed=none)
    torch.testing.assert_close(one.js, other.js, rtol=0, atol=1e-5)
    assert one.js.max() <= torch.tensor(math.log(2))
    assert float(one.kl.min()) >= 0


@pytest.mark.parametrize("width", [10, 257, 4096, 5003])
@pytest.mark.parametrize("k", [1, 5, 10])
def test_top_k_equals_torch(width: int, k: int) -> None:
    z = torch.randn(7, width, generator=torch.Generator().manual_seed(width + k))
    z[:, -1] = 9.0  # the ragged end of the vocabulary counts too
    ids, values = top_k(z, k)
    expected = z.topk(k)
    assert torch.equal(values, expected.values)
    assert torch.equal(ids, expected.indices)


@pytest.mark.parametrize("positions", ["last", [0, 2], slice(1, 4), "last_subject", -2])
def test_positions_choose_rows_of_the_whole(positions: object) -> None:
    hooked = model("llama")
    prompt = wb.Prompt("The Eiffel Tower", subject="Eiffel")
    whole = LogitLens()(hooked, prompt).data
    part = LogitLens(positions=positions)(hooked, prompt).data  # type: ignore[arg-type]
    assert 0 < part.sizes["place"] < whole.sizes["place"]
    for index, position in enumerate(part.position.values):
        same = whole.isel(place=int(position))
        np.testing.assert_allclose(part.entropy[..., index], same.entropy, atol=ATOL)
    if positions == "last_subject":
        assert part.position.values.tolist() == [10]  # BOS, "The ", and the l of Eiffel


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"top_k": 0}, "top_k is 0: expected a whole number, at least 1"),
        ({"sites": ["resid_psot"]}, "expected some of resid_pre"),
        ({"sites": []}, "expected some of"),
        ({"sites": ["resid_post", "resid_post"]}, "one is named twice"),
        ({"top_k": True}, "top_k is True"),
        ({"positions": 1.5}, "positions 1.5: expected one of all"),
        ({"positions": ("last", 1)}, "expected one of all"),
    ],
)
def test_bad_settings(settings: dict[str, object], message: str) -> None:
    with pytest.raises(wb.SettingError, match=message):
        LogitLens(**settings)  # type: ignore[arg-type]


def test_rows_and_frame() -> None:
    hooked = model("gpt2")
    prompts = [wb.Prompt("Rome", id="a", target="R"), wb.Prompt("xy", id="b")]
    result = LogitLens(top_k=2)(hooked, prompts)
    rows = result.rows()
    assert len(rows) == (4 + 2) * (LAYERS + 1)
    assert list(rows[0])[:12] == [
        "prompt", "site", "layer", "position", "token", "entropy", "kl", "js",
        "top", "top_logprob", "target_logprob", "target_rank",
    ]  # fmt: skip
    assert rows[0]["prompt"] == "a"
    assert rows[0]["top"][0][1] == rows[0]["top_logprob"]
    assert isinstance(rows[0]["target_rank"], int)
    assert rows[-1]["target_rank"] is None
    assert len(result.to_frame()) == len(rows)


@pytest.mark.parametrize("layer", [0, 1, LAYERS])
def test_selecting_a_layer_by_its_number(layer: int) -> None:
    result = LogitLens()(model("gpt2"), TEXTS[0])
    assert int(result.data.sel(layer=layer).layer) == layer
