"""Sparse autoencoders: formulas, what is refused, planted dictionaries, and the folder's round trip."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import workbench as wb
from probes import SparseAutoencoder, SparseAutoencoderFit
from probes.latents.config import CENTRED, LOADED
from probes.latents.quality import Spectrum, quality
from probes.latents.training import Recipe, Trained, directions, initial
from tests.models.test_adapters import write
from tests.tiny import hf_model, model, tokenizer
from workbench.corpus import Corpus

D, M, N = 6, 10, 7
TEXTS = [f"{first} {second}" for first in "abcdefgh" for second in ("one", "two!", "three 3")]


def tensors(architecture: str, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random ones in float64."""
    random = torch.Generator().manual_seed(seed)
    own = {
        "standard": ["b_enc"],
        "topk": ["b_enc"],
        "jumprelu": ["b_enc", "threshold"],
        "gated": ["b_gate", "b_mag", "r_mag"],
    }[architecture]
    shapes = {"W_enc": (D, M), "W_dec": (M, D), "b_dec": (D,)} | dict.fromkeys(own, (M,))
    return {
        name: torch.randn(*shape, generator=random, dtype=torch.float64)
        for name, shape in shapes.items()
    }


def cfg(kind: str, **more: Any) -> dict[str, Any]:
    found = {
        "architecture": kind,
        "d_in": D,
        "d_sae": M,
        "dtype": "float64",
        "metadata": {"hook_name": "blocks.1.hook_resid_post", "sae_lens_version": "6.0.0"},
    }
    return found | ({"k": 3} if kind == "topk" else {}) | more


def plain(
    architecture: str, how: dict[str, Any], part: dict[str, np.ndarray], x: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Latents and reconstruction of one state, number by number, from the formulas."""
    norm, size, shift = how.get("normalize_activations", "none"), 1.0, 0.0
    if norm == "constant_norm_rescale":
        size = np.sqrt((x**2).sum()) / np.sqrt(D)
        n = x / size
    elif norm == "layer_norm":
        shift = x.mean()
        size = np.sqrt(((x - shift) ** 2).sum() / (D - 1))
        n = (x - shift) / (size + 1e-5)
    else:
        n = x
    if how.get("apply_b_dec_to_input", True):
        n = n - part["b_dec"]
    f = np.zeros(M)
    for j in range(M):
        w = sum(n[i] * part["W_enc"][i, j] for i in range(D))
        if architecture == "gated":
            magnitude = w * np.exp(part["r_mag"][j]) + part["b_mag"][j]
            f[j] = max(0.0, magnitude) if w + part["b_gate"][j] > 0 else 0.0
        else:
            f[j] = w + part["b_enc"][j]
    norms = np.array([np.sqrt((row**2).sum()) for row in part["W_dec"]])
    scale = norms if how.get("rescale_acts_by_decoder_norm") else np.ones(M)
    if architecture == "topk":
        f = f * scale
        kept = sorted(range(M), key=lambda j: -f[j])[: how["k"]]
        f = np.array([max(0.0, f[j]) if j in kept else 0.0 for j in range(M)])
    elif architecture == "jumprelu":
        f = np.where(f > part["threshold"], np.maximum(f, 0), 0.0)
    elif architecture == "standard":
        f = np.maximum(f, 0)
    made = sum(f[j] / scale[j] * part["W_dec"][j] for j in range(M)) + part["b_dec"]
    return f, made * size + shift


@pytest.mark.parametrize(
    ("architecture", "more"),
    [
        ("standard", {}),
        ("standard", {"apply_b_dec_to_input": False, "normalize_activations": "layer_norm"}),
        ("gated", {"normalize_activations": "constant_norm_rescale"}),
        ("topk", {"k": 3}),
        ("topk", {"k": 4, "rescale_acts_by_decoder_norm": True}),
        ("jumprelu", {}),
    ],
)
def test_latents_and_reconstructions_are_those_of_the_formulas(
    architecture: str, more: dict[str, Any], tmp_path: Path
) -> None:
    """Read from a folder that holds nothing but the format's two files."""
    part, how = tensors(architecture), cfg(architecture, **more)
    (tmp_path / "cfg.json").write_text(json.dumps(how), encoding="utf-8")
    save_file(part, tmp_path / "sae_weights.safetensors")
    sae = SparseAutoencoder.load(tmp_path)
    states = torch.randn(N, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    latents = sae.encode(states)
    made = sae.decode(latents, states)
    arrays = {name: one.numpy() for name, one in part.items()}
    expected = [plain(architecture, how, arrays, row) for row in states.numpy()]
    # float64 sums of ten products of order 1, in another order
    np.testing.assert_allclose(latents, [one[0] for one in expected], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(made, [one[1] for one in expected], rtol=1e-12, atol=1e-12)
    assert 0 < (latents > 0).double().mean() < 1


def test_older_folders_say_the_same_otherwise() -> None:
    """Flat fields, the activation's name, a factor of ones; centred models; rounding to cfg's dtype."""
    old = {
        "d_in": D,
        "d_sae": M,
        "dtype": "torch.float64",
        "hook_point": "blocks.0.hook_resid_pre",
        "activation_fn_str": "topk",
        "activation_fn_kwargs": {"k": 3},
        "model_from_pretrained_kwargs": {"center_writing_weights": True},
        "normalize_activations": False,
    }
    part = tensors("topk")
    older = SparseAutoencoder(old, part | {"scaling_factor": torch.ones(M)})
    assert older.site == ("resid_pre", 1)
    states = torch.randn(N, D, dtype=torch.float64)
    centred = states - states.mean(1, keepdim=True)
    newer = SparseAutoencoder(cfg("topk"), part)
    assert newer.site == ("resid_post", 2)
    torch.testing.assert_close(older.encode(states), newer.encode(centred), rtol=0, atol=0)
    heads = SparseAutoencoder(old | {"hook_point": "blocks.0.attn.hook_z"}, part)
    assert heads.site == ("z", 1)  # which centred weights leave as it is
    by_head = states.reshape(N, 2, -1)
    torch.testing.assert_close(heads.encode(by_head), newer.encode(states), rtol=0, atol=0)
    coarse = SparseAutoencoder(cfg("topk", dtype="bfloat16"), part)
    rounded = {name: one.bfloat16().double() for name, one in part.items()}
    wanted = SparseAutoencoder(cfg("topk"), rounded).encode(centred)
    torch.testing.assert_close(coarse.encode(centred), wanted, rtol=0, atol=0)


def test_an_older_folder_that_may_be_of_a_centred_model_says_so() -> None:
    """Read with their mean, as it stands; a folder that says either, or of heads, has no such doubt."""
    read = model("gpt2")
    part, named = tensors("topk"), {"hook_name": "blocks.0.hook_resid_pre"}
    unsaid = SparseAutoencoder(cfg("topk") | {"metadata": named}, part)
    assert "cfg.json does not say whether its states were without their mean" in unsaid.remark(read)
    for more in ({LOADED: {CENTRED: True}}, {LOADED: {}}, {"hook_name": "blocks.0.attn.hook_z"}):
        said = SparseAutoencoder(cfg("topk") | {"metadata": named | more}, part)
        assert "cfg.json" not in said.remark(read)


def refused() -> list[tuple[dict[str, Any], str]]:
    named = {"hook_name": "blocks.1.hook_resid_post"}
    return [
        (
            {"architecture": "batchtopk"},
            "architecture 'batchtopk': expected one of standard, gated",
        ),
        ({"architecture": "transcoder"}, "architecture 'transcoder'"),
        ({"normalize_activations": "expected_average_only_in"}, "whose factor the folder does not"),
        ({"normalize_activations": "batch"}, "normalize_activations 'batch': expected one of none"),
        (
            {"activation_fn": "topk", "architecture": "gated"},
            "'topk' of a gated SAE: expected relu",
        ),
        ({"activation_fn": "tanh-relu"}, "activation_fn is 'tanh-relu': expected relu"),
        ({"reshape_activations": "hook_z"}, "reshape_activations is 'hook_z' at resid_post"),
        ({"dtype": "int8"}, "dtype 'int8'"),
        ({"d_in": 0}, "d_in is 0: expected a whole number"),
        ({"metadata": {}}, "no hook_name"),
        ({"metadata": {"hook_name": "blocks.0.ln2.hook_normalized"}}, "is no canonical site"),
        ({"metadata": {"hook_name": "blocks.0.attn.hook_pattern"}}, "site 'pattern': expected one"),
        ({"metadata": named | {"hook_head_index": 2}}, "it reads head 2 alone"),
        ({"metadata": named | {"hook_name_out": "x"}}, "a transcoder"),
        (
            {"metadata": named | {"model_from_pretrained_kwargs": {"fold_value_biases": True}}},
            "loaded with fold_value_biases=True",
        ),
        ({"d_sae": M + 1}, "tensor W_dec is .10, 6.: a standard SAE has .11, 6."),
    ]


@pytest.mark.parametrize(("more", "message"), refused())
def test_what_is_not_honoured_is_refused_by_name(more: dict[str, Any], message: str) -> None:
    with pytest.raises(wb.WorkbenchError, match=message):
        SparseAutoencoder(cfg("standard", **more), tensors("standard"))


def test_folders_tensors_and_models_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(wb.ResultError, match="no cfg.json in jbloom/GPT2.*download it first"):
        SparseAutoencoder.load("jbloom/GPT2")
    (tmp_path / "cfg.json").write_text("[", encoding="utf-8")
    (tmp_path / "sae_weights.safetensors").write_bytes(b"x")
    with pytest.raises(wb.ResultError, match="cannot be read as an SAE"):
        SparseAutoencoder.load(tmp_path)
    with pytest.raises(wb.ModelError, match="tuned scaling_factor"):
        SparseAutoencoder(cfg("topk"), tensors("topk") | {"scaling_factor": torch.full((M,), 2.0)})
    with pytest.raises(wb.ResultError, match="tensor threshold is missing"):
        SparseAutoencoder(cfg("jumprelu"), tensors("standard"))
    sae = SparseAutoencoder(cfg("topk"), tensors("topk"))
    with pytest.raises(wb.ModelError, match="width 6: .* has 16"):
        sae.require(model("gpt2"))
    with pytest.raises(wb.ModelError, match="has width 5: expected 6"):
        sae.encode(torch.zeros(2, 5))


def test_centred_states_are_refused_on_a_model_that_has_means() -> None:
    """GPT-2's norms take the mean off, so that its states may do without; RMS norms do not."""
    named = {
        "hook_name": "blocks.1.hook_resid_post",
        "model_from_pretrained_kwargs": {"center_writing_weights": True},
    }
    part = {"W_enc": torch.ones(16, 4), "W_dec": torch.ones(4, 16), "b_dec": torch.ones(16)}
    how = cfg("standard", d_in=16, d_sae=4, metadata=named)
    sae = SparseAutoencoder(how, part | {"b_enc": torch.ones(4)})
    sae.require(model("gpt2"))
    with pytest.raises(wb.UnsupportedError, match="reads states without their mean"):
        sae.require(model("llama"))


def planted(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """[count, 16] sums of 2 of 16 orthogonal directions, and the directions."""
    random = torch.Generator().manual_seed(seed)
    rows = torch.linalg.qr(torch.randn(16, 16, generator=torch.Generator().manual_seed(9))).Q
    chosen = torch.rand(count, 16, generator=random).argsort(1)[:, :2]
    amounts = torch.rand(count, 16, generator=random) + 0.5
    return torch.zeros(count, 16).scatter(1, chosen, amounts.gather(1, chosen)) @ rows, rows


def test_a_planted_dictionary_is_found_and_the_loss_falls() -> None:
    """Sparse sums of orthogonal directions: each found by a latent; above PCA and random rows."""
    states, rows = planted(512, 0)
    recipe = Recipe(k=2, steps=600, rate=5e-3, dead_after=2048)
    trained = Trained(recipe, initial(states, 24, 0), torch.device("cpu"))
    held = planted(512, 1)[0]
    explained = []
    for step in range(recipe.steps):
        if step in (0, 100, 599):
            explained.append(figures(trained, held)["variance_explained"])
        trained.add(planted(512, 2 + step)[0], 1 / 512)
        trained.step()
    cosines = (trained.folded()["W_dec"] @ rows.T).amax(0)
    assert cosines.min() > 0.95
    assert explained == sorted(explained)
    found = figures(trained, held)
    assert found["variance_explained"] > 0.95
    assert found["pca"] < 0.3  # two of sixteen equal directions: about an eighth
    assert found["random_dictionary"] < 0.7
    assert found["l0"] <= 2


def test_a_steps_gradient_is_that_of_the_formulas() -> None:
    """The share of variance left, and 1/32 of the share of that which the 8 best of 12 dead leave."""
    states, dead = planted(40, 3)[0].double(), range(5, 17)
    begun = initial(states, 24, 0)
    begun["unused"][list(dead)] = 11
    trained = Trained(Recipe(2, 1, 1e-3, dead_after=10), begun, torch.device("cpu"))
    trained.add(states, 1 / 40)
    plain = {
        name: one.detach().clone().requires_grad_() for name, one in trained.parameters.items()
    }
    x = states - states.mean(0)
    x = x / (x.square().sum() / x.numel()).sqrt()
    left, unexplained, errors = torch.zeros(3, dtype=torch.float64)
    for row in x:
        p = (row - plain["b_dec"]) @ plain["W_enc"] + plain["b_enc"]
        best = sorted(range(24), key=lambda j: -p[j].item())
        made = plain["b_dec"] + sum(p[j].relu() * plain["W_dec"][j] for j in best[:2])
        error = (row - made).detach()
        revived = [j for j in best if j in dead][:8]
        again = sum(p[j].relu() * plain["W_dec"][j] for j in revived)
        left = left + (row - made).square().sum()
        unexplained = unexplained + (error - again).square().sum()
        errors = errors + error.square().sum()
    loss = left / x.square().sum() + unexplained / errors / 32
    loss.backward()
    for name, one in trained.parameters.items():
        # float64 sums of some thousand products of order 1, in another order
        torch.testing.assert_close(one.grad, plain[name].grad, rtol=1e-10, atol=1e-13)


def test_one_latent_has_an_encoder_of_its_own() -> None:
    """A column is laid out as the row that it is begun with; a step moves them apart."""
    states = planted(64, 0)[0]
    trained = Trained(Recipe(1, 10, 1e-2, 1000), initial(states, 1, 0), torch.device("cpu"))
    trained.add(states, 1 / 64)
    trained.step()
    assert all(one.is_leaf for one in trained.parameters.values())
    assert not torch.equal(trained.parameters["W_enc"][:, 0], trained.parameters["W_dec"][0])


def figures(trained: Trained, held: torch.Tensor) -> dict[str, Any]:
    part = trained.folded()
    how = cfg("topk", d_in=16, d_sae=24, k=2, dtype="float32")
    spectrum = Spectrum(held.double().mean(0), torch.linalg.svd(held - held.mean(0)).Vh.T.double())
    return quality(SparseAutoencoder(how, part), held.split(100), spectrum, 2, 0)


def test_figures_are_those_of_all_states_at_once() -> None:
    """Variance explained, PCA by scikit-learn, L0; in parts and at once."""
    from sklearn.decomposition import PCA

    random = torch.Generator().manual_seed(4)
    fitted, held = (torch.randn(50, D, generator=random, dtype=torch.float64) for _ in range(2))
    sae = SparseAutoencoder(cfg("topk"), tensors("topk"))
    pca = PCA(3).fit(fitted.numpy())
    every = PCA(D).fit(fitted.numpy())
    spectrum = Spectrum(torch.from_numpy(pca.mean_), torch.from_numpy(every.components_.T.copy()))
    found = quality(sae, held.split(7), spectrum, 3, 0)
    x, mean = held.numpy(), pca.mean_
    total = ((x - mean) ** 2).sum()
    latents = sae.encode(held)
    left = ((x - sae.decode(latents, held).numpy()) ** 2).sum()
    again = pca.inverse_transform(pca.transform(x))
    assert found["variance_explained"] == pytest.approx(1 - left / total)
    assert found["pca"] == pytest.approx(1 - ((x - again) ** 2).sum() / total)
    assert found["l0"] == pytest.approx((latents > 0).sum(1).double().mean())
    assert found["inactive"] == pytest.approx(1 - (latents > 0).any(0).double().mean())
    along = (x - mean) @ directions(M, D, 0).double().numpy().T
    third = np.sort(along, axis=1)[:, -3, None]
    random_rows = np.where(along >= third, along.clip(0), 0) @ directions(M, D, 0).double().numpy()
    scaled = np.linalg.lstsq(random_rows.reshape(-1, 1), (x - mean).reshape(-1), rcond=None)[1][0]
    assert found["random_dictionary"] == pytest.approx(1 - scaled / total)
    none = -directions(1, D, 0).double()
    alone = {"W_enc": none.T, "b_enc": none[:, 0], "W_dec": none, "b_dec": none[0]}
    one = SparseAutoencoder(cfg("topk", d_sae=1, k=1), alone)
    centre = Spectrum(torch.zeros(D, dtype=torch.float64), torch.eye(D, dtype=torch.float64))
    assert quality(one, [none], centre, 1, 0)["random_dictionary"] == 0


BRIEF = {"latents": 24, "k": 4, "steps": 20, "tokens": 64, "batch_tokens": 48, "rate": 3e-3}


def test_a_fit_is_a_folder_of_the_format_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """The same bytes after a stop; what is read back gives the same latents; other weights refused."""
    hooked = model("gpt2")
    fit = SparseAutoencoderFit(layer=2, dead_after=64, **BRIEF)  # type: ignore[arg-type]
    whole = fit(hooked, TEXTS)
    flag, kept = _After(10), tmp_path / "kept"
    with pytest.raises(wb.Cancelled):
        fit(hooked, TEXTS, checkpoint=kept, cancel=flag)
    again = fit(hooked, TEXTS, checkpoint=kept)
    assert again.hash == whole.hash
    folder = whole.save(tmp_path / "sae")
    assert sorted(file.name for file in folder.iterdir()) == ["cfg.json", "sae_weights.safetensors"]
    said = json.loads((folder / "cfg.json").read_text(encoding="utf-8"))
    assert said["metadata"]["hook_name"] == "blocks.1.hook_resid_post"
    assert (said["architecture"], said["k"], said["d_in"]) == ("topk", 4, 16)
    loaded = SparseAutoencoder.load(folder)
    states = hooked.capture(TEXTS[:3], [("resid_post", 2)])["resid_post", 2]
    torch.testing.assert_close(loaded.encode(states), whole.encode(states), rtol=0, atol=0)
    assert loaded.hash == whole.hash
    held = loaded.made["held_out"]
    assert held["random_dictionary"] < held["variance_explained"] < 1
    assert held["l0"] <= 4
    loaded.require(hooked)
    with pytest.raises(wb.ModelError, match="was fitted on .*: fit one on this model"):
        loaded.require(hooked.twin())
    with pytest.raises(wb.ResultError, match="is there already"):
        whole.save(folder)


def test_a_step_without_states_counts_when_a_fit_goes_on(tmp_path: Path) -> None:
    """Prompts of one token, which skip_first leaves nothing of, a prompt a step."""
    hooked, texts = model("gpt2"), [*TEXTS[:4], "x", "y", "z"]
    few = BRIEF | {"tokens": 1, "held_out": 0.0, "seed": 0}
    fit = SparseAutoencoderFit(layer=2, **few)  # type: ignore[arg-type]
    with pytest.raises(wb.Cancelled):
        fit(hooked, texts, checkpoint=tmp_path / "kept", cancel=_After(10))
    assert fit(hooked, texts, checkpoint=tmp_path / "kept").hash == fit(hooked, texts).hash


# PEFT asks transformers for it under its old name
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_an_adapter_makes_another_model_to_an_sae(tmp_path: Path) -> None:
    """Its weights are the same, its states are not."""
    tuned = wb.load(hf_model("llama"), tokenizer(), adapter=write(tmp_path / "lora"))
    bare = tuned.with_adapter(None)
    sae = SparseAutoencoderFit(layer=2, **BRIEF | {"steps": 1})(bare, TEXTS)  # type: ignore[arg-type]
    sae.require(bare)
    with pytest.raises(wb.ModelError, match=r"was fitted on .*\(adapter None\).*fit one on this"):
        sae.require(tuned)


class _After:
    """A flag that is set after it was looked at a number of times."""

    def __init__(self, looks: int) -> None:
        self.looks = looks

    def is_set(self) -> bool:
        self.looks -= 1
        return self.looks < 0


@pytest.mark.parametrize(("family", "site"), [("llama", "mlp_act"), ("gpt_neox", "z")])
def test_any_site_and_family(family: str, site: str) -> None:
    hooked = model(family)
    sae = SparseAutoencoderFit(layer=1, site=site, **BRIEF | {"steps": 3})(hooked, TEXTS)  # type: ignore[arg-type]
    assert sae.site == (site, 1)
    assert sae.cfg["reshape_activations"] == ("hook_z" if site == "z" else "none")
    states = hooked.capture(TEXTS[:2], [(site, 1)])[site, 1]
    assert sae.encode(states).shape == (len(states), 24)
    fit = SparseAutoencoderFit(layer=1, site=site, **BRIEF)  # type: ignore[arg-type]
    size = 4 * sum(one.numel() for one in sae.tensors.values())
    assert fit.plan(hooked, Corpus.of(hooked, TEXTS)).bytes == size
    assert sae.cfg["metadata"]["context_size"] == max(map(len, Corpus.of(hooked, TEXTS).prompts))


def test_fits_that_are_refused() -> None:
    hooked = model("gpt2")
    for settings, message in (
        ({"layer": 9}, "has no layer 9"),
        ({"layer": 1, "site": "q"}, "site is 'q': expected one of"),
        ({"layer": 1, "k": 0}, "k is 0: expected a whole number of 1..24"),
        ({"layer": 1, "skip_first": 60}, "skip_first=60 leaves none of 24 prompts a token"),
    ):
        with pytest.raises(wb.WorkbenchError, match=message):
            SparseAutoencoderFit(**{"latents": 24, "k": 4, **settings})(
                hooked, Corpus.of(hooked, TEXTS)
            )  # type: ignore[arg-type]
    with pytest.raises(wb.UnsupportedError, match="has two stacks"):
        SparseAutoencoderFit(layer=1, latents=24, k=4)(model("t5"), TEXTS)


@pytest.mark.parametrize(("part", "said"), [(0, "to fit on"), (1, "held out")])
def test_a_part_of_short_prompts_is_refused_before_any_step(part: int, said: str) -> None:
    hooked = model("gpt2")
    pairs = [Corpus.of(hooked, [letter, "a longer text"]) for letter in "abcdefghijkl"]
    corpus = next(one for one in pairs if len(one.split(0.5)[part].prompts[0]) == 1)
    with pytest.raises(wb.PromptError, match=f"leaves none of 1 prompts {said} a token"):
        SparseAutoencoderFit(layer=1, held_out=0.5, **BRIEF).plan(hooked, corpus)  # type: ignore[arg-type]
