"""The nnsight engine against the torch engine, which is held to Hugging Face itself."""

import threading
from collections import Counter
from functools import cache

import pytest
import torch
import xarray.testing

import workbench as wb
from lenses import LogitLens
from tests.models.test_engine import padded, snapshot
from tests.tiny import FAMILIES, LAYERS, TEXTS, has, hf_model, model, tokenizer, tokenizer_of
from workbench.models.nnsight.engine import NnsightModel

# Both engines run the same kernels on the same numbers (of size ~10) once.
CLOSE = {"rtol": 0, "atol": 1e2 * torch.finfo(torch.float64).eps}
INNER = ["resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "mlp_act", "z"]


@cache
def traced(family: str) -> NnsightModel:
    loaded = wb.load(hf_model(family), tokenizer_of(family), engine="nnsight")
    assert isinstance(loaded, NnsightModel)
    return loaded


def sites_of(family: str, sites: list[str]) -> list[str]:
    return [site for site in sites if has(family, site)]


def assert_equal(found: wb.Captures, expected: wb.Captures) -> None:
    assert list(found.values) == list(expected.values)
    for site, value in expected.values.items():
        torch.testing.assert_close(found.values[site], value, **CLOSE)


def loss(logits: torch.Tensor, places: wb.Places) -> torch.Tensor:
    return -logits.log_softmax(-1)[torch.arange(len(places)), 65 + places.row].sum()


def test_every_decoder_family_runs() -> None:
    assert len({traced(family).anatomy.config.model_type for family in FAMILIES}) >= 24
    assert all(not traced(family).refused for family in FAMILIES)


@pytest.mark.parametrize("family", ["bert", "t5"])
def test_a_model_that_is_not_causal_is_refused(family: str) -> None:
    with pytest.raises(wb.UnsupportedError, match=f"{family}.*engine='torch'"):
        wb.load(hf_model(family), tokenizer_of(family), engine="nnsight")


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("family", FAMILIES)
def test_captures(family: str, padding: str) -> None:
    sites = sites_of(family, ["embed", *INNER, "final_norm", "logits"])
    batch = model(family).batch(TEXTS, padding)
    for positions in ("all", "last"):
        expected = model(family).capture(batch, sites, positions)
        assert_equal(traced(family).capture(batch, sites, positions), expected)


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("family", FAMILIES)
def test_edits(family: str, padding: str) -> None:
    batch = model(family).batch(TEXTS, padding)
    for site in sites_of(family, [*INNER, "final_norm"]):
        layer = LAYERS if site == "final_norm" else 2
        edit = wb.Edit((site, layer), lambda old, _: old * 1.5 + 1, positions="last")
        expected = model(family).intervene(batch, [edit], ["resid_post", "logits"])
        assert_equal(traced(family).intervene(batch, [edit], ["resid_post", "logits"]), expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_edits_of_one_block_together(family: str) -> None:
    sites = sites_of(family, INNER)
    edits = [wb.Edit.add((site, 2), torch.ones(1, dtype=torch.float64)) for site in sites[::-1]]
    expected = model(family).intervene(TEXTS, edits, sites)
    assert_equal(traced(family).intervene(TEXTS, edits, sites), expected)


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("family", FAMILIES)
def test_restarts(family: str, padding: str) -> None:
    hooked = traced(family)
    batch = hooked.batch(TEXTS, padding)
    clean = hooked.capture(batch, ["resid_post", "logits"])
    for layer in range(LAYERS + 1):
        states = padded(batch, clean["resid_post", layer], clean.places)
        sites = [("resid_post", at) for at in range(layer, LAYERS + 1)]
        found = hooked.tail(batch, layer, states, [*sites, "logits"])
        for site, value in found.values.items():
            torch.testing.assert_close(value, clean.values[site], **CLOSE)


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("family", FAMILIES)
def test_gradients(family: str, padding: str) -> None:
    sites = sites_of(family, [*INNER, "final_norm"])
    batch = model(family).batch(TEXTS, padding)
    expected = model(family).grad(batch, loss, sites)
    assert_equal(traced(family).grad(batch, loss, sites), expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_last_step(family: str) -> None:
    states = torch.randn(5, 16, dtype=torch.float64)
    torch.testing.assert_close(
        traced(family).readout(states), model(family).readout(states), **CLOSE
    )


def test_several_reads_and_edits_are_one_pass() -> None:
    hf = hf_model("llama")
    hooked = wb.load(hf, tokenizer(), engine="nnsight")
    passes: Counter[str] = Counter()
    for name in ("model", "model.layers.1", "model.layers.2"):
        hf.get_submodule(name).register_forward_hook(lambda *_, name=name: passes.update([name]))
    edits = [wb.Edit.add(("resid_mid", 1), torch.ones(16)), wb.Edit.add(("z", 2), torch.ones(8))]
    reads = [wb.Read(["resid_post", "logits"]), wb.Read(["attn_out"], "last")]
    hooked.read(hooked.batch(TEXTS), reads, edits=edits)
    hooked.grad(TEXTS, loss, ["resid_pre", "mlp_act"])
    assert passes == {"model": 2, "model.layers.1": 2, "model.layers.2": 2}


def test_blocks_that_no_read_needs_are_not_run() -> None:
    hf = hf_model("gpt2")
    hooked = wb.load(hf, tokenizer(), engine="nnsight")
    ran: list[int] = []
    for layer, block in enumerate(hf.transformer.h, 1):
        block.ln_1.register_forward_hook(lambda *_, layer=layer: ran.append(layer))
    hooked.capture(hooked.batch(TEXTS, "left"), [("resid_post", 1)])
    assert ran == [1]
    hooked.tail("abc", 2, torch.zeros(1, 3, 16))
    assert ran == [1, 3]


def test_captures_are_copies() -> None:
    edit = wb.Edit(("attn_out", 1), lambda old, _: old.add_(1))
    found = traced("falcon").capture("abc", ["attn_out"])
    again = traced("falcon").intervene("abc", [edit], ["attn_out"])
    torch.testing.assert_close(again["attn_out", 1], found["attn_out", 1] + 1, **CLOSE)


@pytest.mark.parametrize("family", ["gpt2", "gemma3", "falcon"])
def test_nothing_is_left_behind(family: str) -> None:
    fresh = hf_model(family)
    before, attributes = snapshot(fresh), [sorted(m.__dict__) for m in fresh.modules()]
    hooked = wb.load(fresh, tokenizer(), engine="nnsight")
    hooked.grad(TEXTS[0], loss, ["resid_post"])
    raised = ZeroDivisionError("mine")

    def fail(*_: object) -> torch.Tensor:
        raise raised

    with pytest.raises(ZeroDivisionError) as caught:
        hooked.intervene(TEXTS[0], [wb.Edit(("attn_out", 2), fail)])
    assert caught.value is raised
    with pytest.raises(ZeroDivisionError):
        hooked.grad(TEXTS[0], fail, ["resid_post"])
    assert snapshot(fresh) == before
    assert [sorted(m.__dict__) for m in fresh.modules()] == attributes
    assert_equal(hooked.capture(TEXTS, ["logits"]), model(family).capture(TEXTS, ["logits"]))


def test_an_error_of_torch_comes_out_of_an_edit() -> None:
    """Inside a trace it would end the process, but for what nnsight's import does to glibc."""
    edit = wb.Edit(("attn_out", 2), lambda old, _: old @ old)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        traced("gpt2").intervene(TEXTS, [edit])


def test_an_edit_of_another_shape_is_refused() -> None:
    with pytest.raises(wb.SettingError, match="edit of attn_out, layer 2 gives shape"):
        traced("gpt2").intervene("abc", [wb.Edit(("attn_out", 2), lambda *_: torch.ones(3))])


def test_two_threads() -> None:
    hooked = traced("gpt2")
    zero = wb.Edit.set(("mlp_out", 1), torch.zeros(16))
    edits: dict[str, list[wb.Edit]] = {"clean": [], "edited": [zero]}
    expected = {name: hooked.intervene("abc", edits[name]) for name in edits}
    wrong: list[str] = []

    def work(name: str) -> None:
        for _ in range(500):
            found = hooked.intervene("abc", edits[name])["logits", LAYERS]
            if not torch.equal(found, expected[name]["logits", LAYERS]):
                wrong.append(name)

    threads = [threading.Thread(target=work, args=(name,)) for name in edits]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_lens_is_the_torch_engines() -> None:
    prompts = [wb.Prompt("The Eiffel Tower", target="s"), wb.Prompt("Rome", target="s")]
    lens = LogitLens(top_k=3)
    found, expected = lens(traced("gemma2"), prompts), lens(model("gemma2"), prompts)
    assert expected.data["target_logprob"].notnull().all()
    xarray.testing.assert_allclose(found.data, expected.data, rtol=0, atol=1e-6)


# --- what it refuses ---------------------------------------------------------------------------


@pytest.mark.parametrize("site", ["q", "k", "v", "pattern"])
def test_attentions_product_is_refused(site: str) -> None:
    with pytest.raises(wb.UnsupportedError, match=f"nnsight engine has no site {site}.*torch"):
        traced("gpt2").capture("abc", [site])
    with pytest.raises(wb.UnsupportedError, match=f"no site {site}"):
        traced("gpt2").intervene("abc", [wb.Edit.add((site, 1), torch.ones(1))])


def test_other_operations_are_refused_by_name() -> None:
    hooked, states = traced("gpt2"), torch.zeros(1, 3, 16)
    with pytest.raises(wb.UnsupportedError, match="has no factors"):
        hooked.factors("abc", loss, [("ff1", 1)])
    with pytest.raises(wb.UnsupportedError, match="has no block"):
        hooked.block("abc", 1, states)
    with pytest.raises(wb.UnsupportedError, match="has no keys_values"):
        hooked.keys_values("abc")
    prefix = model("gpt2").keys_values("abc").before(1)
    with pytest.raises(wb.UnsupportedError, match="has no prefix"):
        hooked.tail("abc", 1, states[:, 1:], prefix=prefix)


def test_a_pass_inside_an_edit_is_refused_and_the_last_step_is_not() -> None:
    hooked = traced("gpt2")
    inner = wb.Edit(("resid_post", 1), lambda old, _: hooked.capture("a", ["embed"])["embed", 0])
    with pytest.raises(wb.SettingError, match="a pass inside an edit of another"):
        hooked.intervene("abc", [inner])
    read: list[torch.Tensor] = []
    lens = wb.Edit(("resid_post", 1), lambda old, _: read.append(hooked.readout(old)) or old)
    found = hooked.intervene("abc", [lens], ["resid_post", "logits"])
    torch.testing.assert_close(read[0], hooked.readout(found["resid_post", 1]), **CLOSE)
    assert_equal(found, hooked.capture("abc", ["resid_post", "logits"]))


def test_training_mode_is_refused() -> None:
    hf = hf_model("gpt2")
    hooked = wb.load(hf, tokenizer(), engine="nnsight")
    hf.train()
    with pytest.raises(wb.ModelError, match="training mode"):
        hooked.capture("abc", ["embed"])


def test_a_module_put_in_after_loading_is_refused() -> None:
    hf = hf_model("gpt2")
    hooked = wb.load(hf, tokenizer(), engine="nnsight")
    hf.transformer.h[0].mlp.c_proj = torch.nn.Sequential(hf.transformer.h[0].mlp.c_proj)
    with pytest.raises(
        wb.ModelError, match="Sequential was put into the model after it was loaded"
    ):
        hooked.capture("abc", ["mlp_act"])


# --- a model that the caller holds ---------------------------------------------------------------


def test_the_callers_nnsight_model() -> None:
    import nnsight

    held = nnsight.NNsight(hf_model("gpt2"))
    before = snapshot(held._module)
    hooked = wb.load(held, tokenizer())
    assert hooked.engine == "nnsight"
    assert_equal(hooked.capture(TEXTS, INNER), model("gpt2").capture(TEXTS, INNER))
    assert snapshot(held._module) == before
    ids = hooked.batch("abc").ids
    with held.trace(ids):
        state = nnsight.save(held.transformer.h[0].output)
    expected = model("gpt2").capture("abc", ["resid_post"])["resid_post", 1]
    torch.testing.assert_close(state[0], expected, **CLOSE)


def test_the_callers_model_with_its_tokenizer() -> None:
    import nnsight

    held = nnsight.TransformersModel(hf_model("llama"), tokenizer=tokenizer(bos=True))
    assert_equal(wb.load(held).capture("abc", ["z"]), model("llama").capture("abc", ["z"]))


def test_a_callers_model_that_would_mislead_is_refused() -> None:
    import nnsight

    held = nnsight.NNsight(hf_model("gpt2"))
    with pytest.raises(wb.ModelError, match="has no tokenizer"):
        wb.load(held)
    with held.edit(inplace=True):
        held.transformer.h[0].output = held.transformer.h[0].output * 2
    with pytest.raises(wb.ModelError, match="edits of its own: call model.clear_edits"):
        wb.load(held, tokenizer())
    with pytest.raises(wb.ModelError, match="holds a Linear: expected a Hugging Face model"):
        wb.load(nnsight.NNsight(torch.nn.Linear(2, 2).eval()), tokenizer())
    with pytest.raises(wb.UnsupportedError, match="runs on engine 'nnsight' alone"):
        wb.load(held, tokenizer(), engine="torch")
