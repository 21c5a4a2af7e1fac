"""Adapters over one set of weights, against PEFT itself, and everything that is refused."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, PrefixTuningConfig, get_peft_model

import workbench as wb
from lenses import LogitLens
from tests.tiny import LAYERS, TEXTS, hf_model, tokenizer

# PEFT asks transformers for it under its old name
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

TARGETS = {"llama": ["q_proj", "down_proj"], "gpt2": ["c_attn", "c_fc"], "gpt_neox": ["dense"]}
TEXT = "The Eiffel Tower"


def lora(family: str, **settings: Any) -> LoraConfig:
    return LoraConfig(
        **{
            "r": 4,
            "target_modules": TARGETS[family],
            "init_lora_weights": "gaussian",
            "fan_in_fan_out": family == "gpt2",
        }
        | settings
    )


def write(folder: Path, family: str = "llama", seed: int = 1, **settings: Any) -> Path:
    """A LoRA with random numbers in both of its factors, as PEFT writes it."""
    tuned = get_peft_model(hf_model(family), lora(family, **settings))
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in tuned.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator).to(parameter) * 0.3
    tuned.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("one") / "one")


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("two") / "two", seed=2, r=2, lora_alpha=32)


def logits(hf: Any, text: str = TEXT) -> torch.Tensor:
    ids = torch.tensor([wb.load(hf_model("llama"), tokenizer()).encode(wb.Prompt(text)).ids])
    with torch.no_grad():
        return hf(ids, use_cache=False).logits[0]


def own(model: wb.Model, text: str = TEXT) -> torch.Tensor:
    return model.capture(text, ["logits"])["logits", LAYERS]


@pytest.mark.parametrize(
    "settings",
    [{}, {"use_rslora": True}, {"use_dora": True}, {"lora_dropout": 0.5}],
    ids=lambda settings: next(iter(settings), "plain"),
)
@pytest.mark.parametrize("family", TARGETS)
def test_numbers_are_those_of_peft(family: str, settings: dict[str, Any], tmp_path: Path) -> None:
    folder = write(tmp_path / "lora", family, **settings)
    tuned = wb.load(hf_model(family), tokenizer(), adapter=folder)
    expected = PeftModel.from_pretrained(hf_model(family), folder).eval()
    assert tuned.adapter == "lora"
    assert torch.equal(own(tuned), logits(expected))
    assert torch.equal(own(tuned.with_adapter(None)), logits(hf_model(family)))
    assert not torch.allclose(own(tuned), own(tuned.with_adapter(None)), atol=0.01)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bits_as_peft_has_them(folder: Path, dtype: torch.dtype) -> None:
    tuned = wb.load(hf_model("llama", dtype), tokenizer(), adapter=folder)
    expected = PeftModel.from_pretrained(hf_model("llama", dtype), folder).eval()
    assert tuned.dtype == dtype
    assert torch.equal(own(tuned), logits(expected))


def test_sites_restart_gradients_and_factors_see_the_adapter(folder: Path) -> None:
    tuned = wb.load(hf_model("llama"), tokenizer(), adapter=folder)
    batch = tuned.batch(TEXTS)
    full = tuned.capture(batch, ["resid_pre", "attn_out", "mlp_out", "resid_post", "logits"])
    total = full.stack("resid_pre") + full.stack("attn_out") + full.stack("mlp_out")
    torch.testing.assert_close(total, full.stack("resid_post")[1:])
    alone = tuned.batch(TEXTS[0])
    resid = tuned.capture(alone, ["resid_post"])["resid_post", 1][None]
    again = tuned.tail(alone, 1, resid)["logits", LAYERS]
    assert torch.equal(again, own(tuned, TEXTS[0]))

    def best(found: torch.Tensor, _: Any) -> torch.Tensor:
        return found.max(dim=1).values.sum()

    merged = PeftModel.from_pretrained(hf_model("llama"), folder).merge_and_unload()
    plain = wb.load(merged.eval(), tokenizer())
    for site in ("resid_post", "attn_out"):
        ours = tuned.grad(TEXT, best, [site]).stack(site)
        torch.testing.assert_close(ours, plain.grad(TEXT, best, [site]).stack(site))
    ours = tuned.factors(TEXT, best, [("down", 2)])["down", 2]
    theirs = plain.factors(TEXT, best, [("down", 2)])["down", 2]
    torch.testing.assert_close(ours.x, theirs.x)
    torch.testing.assert_close(ours.delta, theirs.delta)


@pytest.mark.parametrize("name", ["weight", "lora_A", "default", "0", "model", "q_proj"])
def test_names_that_are_parts_of_other_names(folder: Path, name: str) -> None:
    model = wb.load(hf_model("llama"), tokenizer(), adapter={name: folder})
    expected = PeftModel.from_pretrained(hf_model("llama"), folder).eval()
    assert torch.equal(own(model), logits(expected))
    assert torch.equal(own(model.with_adapter(None)), logits(hf_model("llama")))
    assert (
        model.with_adapter(None).provenance()
        == wb.load(hf_model("llama"), tokenizer()).provenance()
    )


def test_several_adapters_by_name(folder: Path, second: Path) -> None:
    model = wb.load(hf_model("llama"), tokenizer(), adapter={"a": folder, "b": second})
    assert (model.adapter, model.adapters) == ("a", ["a", "b"])
    for name, path in (("a", folder), ("b", second)):
        expected = PeftModel.from_pretrained(hf_model("llama"), path).eval()
        assert torch.equal(own(model.with_adapter(name)), logits(expected))
    assert torch.equal(own(model.with_adapter(None)), logits(hf_model("llama")))
    assert "llama + b" in repr(model.with_adapter("b")).lower().replace("forcausallm", "")


def test_the_base_keeps_its_hash_and_results_name_the_adapter(folder: Path, second: Path) -> None:
    plain = wb.load(hf_model("llama"), tokenizer()).provenance()
    model = wb.load(hf_model("llama"), tokenizer(), adapter={"a": folder, "b": second})
    base = model.with_adapter(None)
    assert base.provenance() == plain
    said = model.provenance()
    assert said["weights"] == plain["weights"]
    assert said["adapter"]["name"] == "a"
    other = model.with_adapter("b").provenance()["adapter"]["weights"]
    renamed = wb.load(hf_model("llama"), tokenizer(), adapter={"x": folder}).provenance()["adapter"]
    assert said["adapter"]["weights"] == renamed["weights"] != other


def test_an_adapters_hash_knows_nothing_of_others(folder: Path, tmp_path: Path) -> None:
    elsewhere = write(tmp_path / "elsewhere", target_modules=["k_proj", "up_proj"])
    model = wb.load(hf_model("llama"), tokenizer(), adapter={"x": elsewhere, "a": folder})
    alone = wb.load(hf_model("llama"), tokenizer(), adapter={"a": folder})
    assert model.with_adapter("a").provenance() == alone.provenance()


def test_the_scale_is_part_of_the_adapters_hash(folder: Path, tmp_path: Path) -> None:
    settings = json.loads((folder / "adapter_config.json").read_text())
    louder = tmp_path / "louder"
    louder.mkdir()
    (louder / "adapter_config.json").write_text(json.dumps(settings | {"lora_alpha": 99}))
    (louder / "adapter_model.safetensors").write_bytes(
        (folder / "adapter_model.safetensors").read_bytes()
    )
    model = wb.load(hf_model("llama"), tokenizer(), adapter={"a": folder, "b": louder})
    hashes = {model.with_adapter(name).provenance()["adapter"]["weights"] for name in "ab"}
    assert len(hashes) == 2


def test_the_callers_model_stays_as_it_was(folder: Path) -> None:
    hf = hf_model("llama")
    hf.lm_head.weight.requires_grad_(False)
    flags = {name: p.requires_grad for name, p in hf.named_parameters()}
    state = torch.get_rng_state()
    before = logits(hf)
    tuned = wb.load(hf, tokenizer(), adapter=folder)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(logits(hf), before)
    own(tuned)
    with pytest.raises(wb.SettingError):
        tuned.capture(TEXT, [("resid_post", 9)])
    assert torch.equal(logits(hf), before)
    kept = {n.replace(".base_layer.", "."): p for n, p in hf.named_parameters() if "lora" not in n}
    assert {name: p.requires_grad for name, p in kept.items()} == flags
    assert not any(p.requires_grad for name, p in hf.named_parameters() if "lora_" in name)


def test_a_plain_view_of_the_same_model_reads_the_base(folder: Path) -> None:
    hf = hf_model("llama")
    early = wb.load(hf, tokenizer())
    before = own(early)
    wb.load(hf, tokenizer(), adapter=folder)
    assert torch.equal(own(early), before)
    assert torch.equal(own(wb.load(hf, tokenizer())), before)


def test_a_peft_model_of_the_callers_own(folder: Path, second: Path) -> None:
    wrapped = PeftModel.from_pretrained(hf_model("llama"), folder, adapter_name="a")
    wrapped.load_adapter(str(second), "b")
    wrapped.eval()
    wrapped.set_adapter("b")
    flags = [p.requires_grad for p in wrapped.parameters()]
    expected = {"b": logits(wrapped)}
    model = wb.load(wrapped, tokenizer())
    assert model.adapter == "b"
    assert torch.equal(own(model), expected["b"])
    assert torch.equal(own(model.with_adapter(None)), logits(hf_model("llama")))
    assert not torch.equal(own(model.with_adapter("a")), expected["b"])
    assert wrapped.active_adapters == ["b"]
    assert [p.requires_grad for p in wrapped.parameters()] == flags
    assert torch.equal(logits(wrapped), expected["b"])


def test_two_threads_never_see_each_others_adapter(folder: Path) -> None:
    tuned = wb.load(hf_model("llama"), tokenizer(), adapter=folder)
    views = [tuned, tuned.with_adapter(None)]
    expected = [own(view) for view in views]
    wrong: list[int] = []

    def ask(view: wb.Model, right: torch.Tensor) -> None:
        wrong.extend(i for i in range(100) if not torch.equal(own(view), right))

    threads = [
        threading.Thread(target=ask, args=pair) for pair in zip(views, expected, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_turn_inside_a_turn(folder: Path) -> None:
    tuned = wb.load(hf_model("llama"), tokenizer(), adapter=folder)
    base = tuned.with_adapter(None)
    expected = own(tuned)
    with tuned.lock:
        own(base)
        assert torch.equal(logits(tuned.hf), expected)
    assert torch.equal(logits(tuned.hf), own(base))


def test_a_lens_and_a_store_of_an_adapter(folder: Path, tmp_path: Path) -> None:
    tuned = wb.load(hf_model("llama", torch.float32), tokenizer(), adapter=folder)
    live = LogitLens()(tuned, TEXTS)
    store = wb.capture(tuned, TEXTS, sites=["resid_post"], out=tmp_path / "acts")
    (stored,) = wb.measure(wb.Store.open(store.folder), [LogitLens()])
    assert stored.data.drop_attrs().equals(live.data.drop_attrs())
    assert stored.provenance["model"]["adapter"]["name"] == "one"


def edited(folder: Path, out: Path, **settings: Any) -> Path:
    """The adapter with other settings in its config."""
    out.mkdir()
    config = json.loads((folder / "adapter_config.json").read_text())
    (out / "adapter_config.json").write_text(json.dumps(config | settings))
    weights = (folder / "adapter_model.safetensors").read_bytes()
    (out / "adapter_model.safetensors").write_bytes(weights)
    return out


@pytest.mark.parametrize(
    ("settings", "error", "reason"),
    [
        (
            {"modules_to_save": ["lm_head"]},
            wb.UnsupportedError,
            r"sets modules_to_save=\['lm_head'\]",
        ),
        ({"bias": "all"}, wb.UnsupportedError, "sets bias='all', which changes more"),
        ({"init_lora_weights": "pissa"}, wb.UnsupportedError, "sets init_lora_weights='pissa'"),
        ({"peft_type": "IA3"}, wb.UnsupportedError, "is of type IA3: expected LORA"),
        ({"target_modules": ["c_proj"]}, wb.ModelError, "does not fit the model: "),
        ({"target_modules": ["q_proj"]}, wb.ModelError, "has, and the model has not, .*down_proj"),
        (
            {"target_modules": ["q_proj", "down_proj", "up_proj"]},
            wb.ModelError,
            "lacks .*up_proj",
        ),
        ({"r": 3}, wb.ModelError, "does not fit the model: size mismatch for model.layers.2"),
        ({"peft_type": None}, wb.UnsupportedError, "is of type None: expected LORA"),
        ({"r": -1}, wb.ModelError, "does not fit the model: .*positive integer"),
    ],
)
def test_adapters_that_are_refused_leave_nothing(
    folder: Path, tmp_path: Path, settings: Any, error: type[Exception], reason: str
) -> None:
    hf = hf_model("llama")
    before, flags = list(hf.state_dict()), [p.requires_grad for p in hf.parameters()]
    with pytest.raises(error, match=reason) as caught:
        wb.load(hf, tokenizer(), adapter=edited(folder, tmp_path / "bad", **settings))
    assert "\n" not in str(caught.value)
    assert list(hf.state_dict()) == before
    assert [p.requires_grad for p in hf.parameters()] == flags
    wb.load(hf, tokenizer(), adapter={"bad": folder})


def test_a_second_adapter_that_is_refused_leaves_the_first(folder: Path, tmp_path: Path) -> None:
    hf = hf_model("llama")
    tuned = wb.load(hf, tokenizer(), adapter=folder)
    expected, names = own(tuned), list(hf.state_dict())
    with pytest.raises(wb.ModelError, match="does not fit"):
        wb.load(hf, tokenizer(), adapter=edited(folder, tmp_path / "bad", r=3))
    assert list(hf.state_dict()) == names
    assert torch.equal(own(tuned), expected)


def test_folders_that_are_none(folder: Path, tmp_path: Path) -> None:
    hf = hf_model("llama")

    def refused(source: Any) -> str:
        with pytest.raises(wb.ModelError) as caught:
            wb.load(hf, tokenizer(), adapter=source)
        return str(caught.value)

    assert "no adapter folder ./none" in refused("./none")
    assert "no adapter: expected a folder" in refused({})
    assert "adapter is a int: expected a folder or a hub name" in refused(3)
    assert "adapter is a list: expected a folder or a hub name" in refused([folder])
    assert "adapter is a NoneType: expected a folder" in refused({"one": folder, "two": None})
    assert "has no adapter_config.json" in refused(tmp_path)
    unread = edited(folder, tmp_path / "unread")
    for text in ("{", "[1]"):
        (unread / "adapter_config.json").write_text(text)
        assert "unread cannot be read" in refused(unread)
    broken = edited(folder, tmp_path / "broken")
    (broken / "adapter_model.safetensors").write_bytes(b"123")
    assert "cannot be read" in refused(broken)
    (broken / "adapter_model.safetensors").rename(broken / "adapter_model.bin")
    assert "pickle weights only, which can run code" in refused(broken)
    (broken / "adapter_model.bin").unlink()
    assert "has no weights" in refused(broken)
    assert "expected a text without dots" in refused({"a.b": folder})


def test_folders_are_looked_at_before_weights_are_loaded(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workbench.models.loading.from_name", None)
    with pytest.raises(wb.ModelError, match="no adapter folder .*none: expected one that PEFT"):
        wb.load(adapter={"one": folder, "two": tmp_path / "none"})
    with pytest.raises(wb.ModelError, match="has no adapter_config.json"):
        wb.load(adapter=tmp_path)


def test_a_hub_name_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(wb.ModelError, match="'no/such-lora' is no folder here") as caught:
        wb.load(hf_model("llama"), tokenizer(), adapter="no/such-lora")
    assert "\n" not in str(caught.value)


def test_names_that_are_taken_or_unknown(folder: Path) -> None:
    hf = hf_model("llama")
    tuned = wb.load(hf, tokenizer(), adapter=folder)
    with pytest.raises(wb.ModelError, match="has an adapter 'one' already"):
        wb.load(hf, tokenizer(), adapter=folder)
    with pytest.raises(wb.ModelError, match="has no adapter 'two': expected 'one' or None"):
        tuned.with_adapter("two")


def test_an_adapter_that_is_merged_later_is_refused(folder: Path) -> None:
    wrapped = PeftModel.from_pretrained(hf_model("llama"), folder).eval()
    base = wb.load(wrapped, tokenizer()).with_adapter(None)
    wrapped.merge_adapter()
    weights = base.hf.model.layers[0].self_attn.q_proj.weight.clone()
    with pytest.raises(wb.ModelError, match="merged into the model's weights"):
        own(base)
    assert torch.equal(base.hf.model.layers[0].self_attn.q_proj.weight, weights)
    wrapped.unmerge_adapter()
    torch.testing.assert_close(own(base), logits(hf_model("llama")))


def test_several_adapters_at_once_are_refused(folder: Path, second: Path) -> None:
    wrapped = PeftModel.from_pretrained(hf_model("llama"), folder, adapter_name="a")
    wrapped.load_adapter(str(second), "b")
    wrapped.base_model.set_adapter(["a", "b"])
    with pytest.raises(wb.UnsupportedError, match="adapters a, b are on at once"):
        wb.load(wrapped.eval(), tokenizer())


def test_models_that_peft_has_changed_for_good(folder: Path) -> None:
    wrapped = PeftModel.from_pretrained(hf_model("llama"), folder).eval()
    wrapped.merge_adapter()
    with pytest.raises(wb.ModelError, match="merged into the model's weights: call unmerge"):
        wb.load(wrapped, tokenizer())
    prefix = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    with pytest.raises(wb.UnsupportedError, match="type PREFIX_TUNING are not supported"):
        wb.load(get_peft_model(hf_model("llama"), prefix).eval(), tokenizer())
    saving = get_peft_model(hf_model("llama"), lora("llama", modules_to_save=["lm_head"])).eval()
    with pytest.raises(wb.UnsupportedError, match="PEFT layer ModulesToSaveWrapper: expected LoRA"):
        wb.load(saving, tokenizer())
