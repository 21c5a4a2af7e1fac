"""What needs a CUDA device: the same code gives the CPU's numbers there."""

from pathlib import Path

import numpy as np
import pytest
import torch

import workbench as wb
from lenses import LogitLens
from probes import CausalTrace, SparseAutoencoderFit, SparseProbe
from tests.tiny import FAMILIES, TEXTS, hf_model, tokenizer

pytestmark = pytest.mark.cuda


@pytest.mark.parametrize("family", FAMILIES)
def test_the_lens_equals_the_cpus(family: str) -> None:
    prompts = [wb.Prompt(text, target=65, foil=66) for text in TEXTS]
    here = LogitLens()(wb.load(hf_model(family), tokenizer()), prompts).data
    there = LogitLens()(wb.load(hf_model(family).cuda(), tokenizer()), prompts).data
    assert (here.top_id == there.top_id).all()
    for name in ("top_logprob", "entropy", "kl", "js", "norm", "target_logprob", "foil_rank"):
        np.testing.assert_allclose(there[name], here[name], rtol=0, atol=1e-4, equal_nan=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_restart_is_exact(family: str) -> None:
    hooked = wb.load(hf_model(family).cuda(), tokenizer())
    batch = hooked.batch(TEXTS)
    full = hooked.capture(batch, ["resid_post", "logits"])
    for layer in range(hooked.n_layers + 1):
        states = full["resid_post", layer]
        empty = states.new_zeros(*batch.ids.shape, states.shape[-1])
        again = hooked.tail(batch, layer, full.places.scatter(empty, states))
        torch.testing.assert_close(again.stack("logits"), full.stack("logits"), rtol=0, atol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_causal_trace_equals_the_cpus(family: str) -> None:
    prompt = wb.Prompt("abcdefgh", subject="cde", target=65, foil=66)
    trace = CausalTrace(noise_std=0.2, samples=3, window=2)
    here = trace(wb.load(hf_model(family), tokenizer()), prompt).data
    there = trace(wb.load(hf_model(family).cuda(), tokenizer()), prompt).data
    np.testing.assert_allclose(there["score"], here["score"], rtol=0, atol=1e-4)


def test_saes_and_probes_of_latents_equal_the_cpus(tmp_path: Path) -> None:
    """float64 models; a fit adds up in another order, so its first step alone is compared."""
    texts = [f"{a}{b}" for a in "abcdefghijkl" for b in ("x", "1", "Q 7")]
    prompts = [wb.Prompt(text, labels={"one": "1" in text}) for text in texts]
    here, there = (wb.load(one, tokenizer()) for one in (hf_model("gpt2"), hf_model("gpt2").cuda()))
    fit = SparseAutoencoderFit(
        layer=2, latents=20, k=3, steps=1, tokens=64, skip_first=0, dead_after=0
    )
    made = [fit(one, texts) for one in (here, there)]
    torch.testing.assert_close(made[1].tensors, made[0].tensors, rtol=1e-5, atol=1e-6)
    folder = made[0].save(tmp_path / "sae")
    probe = SparseProbe(k=2, permutations=20, shortlist=8, sae=str(folder), dense=True)
    data = [probe(one, prompts, batch_size=5).data for one in (here, there)]
    np.testing.assert_allclose(data[1]["f1"], data[0]["f1"], atol=1e-6)


def test_a_real_out_of_memory_halves_the_batch() -> None:
    hooked = wb.load(hf_model("gpt2", torch.float32).cuda(), tokenizer())
    read, tried = hooked.read, []

    def hungry(batch: wb.Batch, *args: object, **kwargs: object) -> object:
        tried.append(len(batch))
        if len(batch) > 2:
            torch.empty(2**60, dtype=torch.uint8, device="cuda")
        return read(batch, *args, **kwargs)  # type: ignore[arg-type]

    hooked.read = hungry  # type: ignore[method-assign, assignment]
    data = LogitLens()(hooked, ["abc"] * 8).data
    assert data.sizes["place"] == 24
    assert tried[0] == 8
    assert tried[-1] <= 2


def test_blocks_spread_over_the_gpus_give_one_devices_numbers() -> None:
    text = "The Eiffel Tower is located in the city of"
    here = wb.load(device="cpu").capture(text, ["resid_post", "attn_out", "logits"])
    last = f"cuda:{torch.cuda.device_count() - 1}"  # with one GPU: accelerate's hooks alone
    halves = {f"transformer.h.{block}": "cuda:0" if block < 3 else last for block in range(6)}
    ends = {"transformer.wte": "cuda:0", "transformer.wpe": "cuda:0", "transformer.ln_f": last}
    spread = wb.load(device=halves | ends | {"transformer.drop": "cuda:0", "lm_head": last})
    there = spread.capture(text, ["resid_post", "attn_out", "logits"])
    for site in ("resid_post", "attn_out", "logits"):
        torch.testing.assert_close(there.stack(site).cpu(), here.stack(site), rtol=0, atol=1e-3)
    states = there["resid_post", 2][None]
    again = spread.tail(text, 2, states)["logits", 6]
    torch.testing.assert_close(again, there["logits", 6], rtol=0, atol=1e-4)
