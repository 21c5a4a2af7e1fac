"""Quantised modules: what they give is read, what they weigh is refused, place by place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_model
from torch import Tensor, nn
from torch.nn import functional

import workbench as wb
from tests.tiny import LAYERS, TEXTS, hf_model, tokenizer

QUANTISED = [(1, "mlp.up_proj"), (2, "mlp.down_proj"), (2, "self_attn.v_proj")]


class Bytes(nn.Module):
    """A linear map of signed bytes and a scale a row, as bitsandbytes' 8 bits are."""

    def __init__(self, own: nn.Linear) -> None:
        super().__init__()
        scale = own.weight.abs().amax(dim=1, keepdim=True) / 127
        packed = (own.weight / scale).round().to(torch.int8)
        self.weight = nn.Parameter(packed, requires_grad=False)
        self.register_buffer("scale", scale.detach())

    def plain(self) -> Tensor:
        return self.weight * self.scale

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.plain())


class Nibbles(nn.Module):
    """A linear map of two numbers a byte under another name, as 4-bit formats are."""

    def __init__(self, own: nn.Linear) -> None:
        super().__init__()
        scale = own.weight.abs().amax(dim=1, keepdim=True) / 7
        levels = ((own.weight / scale).round() + 8).to(torch.uint8)
        self.register_buffer("qweight", (levels[:, ::2] << 4) | levels[:, 1::2])
        self.register_buffer("scale", scale.detach())

    def plain(self) -> Tensor:
        levels = torch.stack([self.qweight >> 4, self.qweight & 15], dim=-1).flatten(1)
        return (levels.to(self.scale) - 8) * self.scale

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.plain())


def pair(kind: type[Bytes | Nibbles]) -> tuple[wb.Model, wb.Model]:
    """A model with some quantised maps, and one whose plain weights are the same numbers."""
    packed, plain = hf_model("llama"), hf_model("llama")
    for layer, path in QUANTISED:
        own = packed.model.layers[layer - 1].get_submodule(path)
        module = kind(own)
        packed.model.layers[layer - 1].set_submodule(path, module)
        twin = plain.model.layers[layer - 1].get_submodule(path)
        twin.weight.data = module.plain()
    return wb.load(packed.eval(), tokenizer()), wb.load(plain, tokenizer())


@pytest.mark.parametrize("kind", [Bytes, Nibbles])
def test_every_site_reads_as_on_plain_weights(kind: type[Bytes | Nibbles]) -> None:
    packed, plain = pair(kind)
    assert not packed.refused
    sites = ["resid_mid", "resid_post", "attn_out", "mlp_out", "mlp_act", "final_norm", "logits"]
    batch = packed.batch(TEXTS, "left")
    expected = plain.capture(batch, sites)
    for site, values in packed.capture(batch, sites).values.items():
        assert torch.equal(values, expected.values[site])


def best(logits: Tensor, _: Any) -> Tensor:
    return logits.max(dim=1).values.sum()


@pytest.mark.parametrize("kind", [Bytes, Nibbles])
def test_gradients_pass_through_and_edits_act(kind: type[Bytes | Nibbles]) -> None:
    packed, plain = pair(kind)
    ours, theirs = (
        m.grad(TEXTS[0], best, ["resid_post"]).stack("resid_post") for m in (packed, plain)
    )
    assert torch.equal(ours, theirs)
    zero = wb.Edit.set(("mlp_out", 2), torch.zeros(16))
    ours, theirs = (m.intervene(TEXTS[0], [zero])["logits", LAYERS] for m in (packed, plain))
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("kind", [Bytes, Nibbles])
def test_factors_are_refused_map_by_map(kind: type[Bytes | Nibbles]) -> None:
    packed, plain = pair(kind)
    for name, layer in (("up", 1), ("down", 2)):
        with pytest.raises(
            wb.UnsupportedError, match=f"{name}, layer {layer}: .*{kind.__name__} are"
        ):
            packed.factors(TEXTS[0], best, [(name, layer)])
    ours = packed.factors(TEXTS[0], best, [("down", 1)])["down", 1]
    assert torch.equal(ours.delta, plain.factors(TEXTS[0], best, [("down", 1)])["down", 1].delta)


@pytest.mark.parametrize("kind", [Bytes, Nibbles])
def test_the_hash_follows_packed_weights(kind: type[Bytes | Nibbles]) -> None:
    model = pair(kind)[0]
    first = model.provenance()["weights"]
    assert model.dtype == torch.float64
    packed = model.hf.model.layers[1].mlp.down_proj
    for numbers in packed.state_dict().values():
        numbers.view(torch.int8).flatten()[3] ^= 1
    assert model.provenance()["weights"] != first


def test_the_dtype_is_that_of_the_plain_weights() -> None:
    hf = hf_model("llama", torch.bfloat16)
    hf.model.embed_tokens = Rows(hf.model.embed_tokens)
    assert wb.load(hf.eval(), tokenizer()).dtype == torch.bfloat16


class Rows(nn.Module):
    """An embedding of signed bytes."""

    def __init__(self, own: nn.Embedding) -> None:
        super().__init__()
        self.num_embeddings = own.num_embeddings
        self.weight = nn.Parameter((own.weight * 16).round().to(torch.int8), requires_grad=False)

    def forward(self, ids: Tensor) -> Tensor:
        return functional.embedding(ids, self.weight).to(torch.bfloat16) / 16


def test_a_store_keeps_a_plain_head_alone(tmp_path: Path) -> None:
    packed, _ = pair(Bytes)
    store = wb.capture(packed, TEXTS, sites=["resid_post"], out=tmp_path / "acts")
    live = packed.capture(TEXTS, ["resid_post"])
    assert torch.equal(
        store.capture(TEXTS, ["resid_post"]).stack("resid_post"), live.stack("resid_post")
    )
    packed.hf.lm_head = Bytes(packed.hf.lm_head)
    with pytest.raises(wb.UnsupportedError, match="keeps its unembedding: the weights of Bytes"):
        wb.capture(packed, TEXTS, sites=["resid_post"], out=tmp_path / "more")


def test_a_quantised_folder_without_its_library_is_one_line(tmp_path: Path) -> None:
    hf = hf_model("llama", torch.float32)
    hf.config.quantization_config = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    hf.config.save_pretrained(tmp_path)
    del hf.config.quantization_config
    save_model(hf, str(tmp_path / "model.safetensors"), {"format": "pt"})
    tokenizer().save_pretrained(tmp_path)
    with pytest.raises(wb.ModelError, match="its weights cannot be read: .*bitsandbytes") as caught:
        wb.load(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.fixture
def toy_format(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library of packed weights, as transformers meets one: a config and a quantizer."""
    from transformers.quantizers import HfQuantizer, auto
    from transformers.utils.quantization_config import QuantizationConfigMixin

    class Config(QuantizationConfigMixin):
        def __init__(self, **_: Any) -> None:
            self.quant_method = "toy"

    class Quantizer(HfQuantizer):
        requires_calibration = True
        is_serializable = is_trainable = True

        def _process_model_before_weight_loading(self, model: Any, **_: Any) -> None:
            for layer, path in QUANTISED:
                block = model.model.layers[layer - 1]
                own = block.get_submodule(path)
                block.set_submodule(path, Bytes(torch.nn.Linear(own.in_features, own.out_features)))

    monkeypatch.setitem(auto.AUTO_QUANTIZATION_CONFIG_MAPPING, "toy", Config)
    monkeypatch.setitem(auto.AUTO_QUANTIZER_MAPPING, "toy", Quantizer)


@pytest.mark.usefixtures("toy_format")
def test_a_quantised_folder_is_placed_as_it_is_read(tmp_path: Path) -> None:
    packed, _ = pair(Bytes)
    save_model(packed.hf, str(tmp_path / "model.safetensors"), {"format": "pt"})
    packed.hf.config.quantization_config = {"quant_method": "toy"}
    packed.hf.config.save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    model = wb.load(tmp_path)
    caught, expected = (m.capture(TEXTS, ["resid_post", "logits"]) for m in (model, packed))
    assert all(torch.equal(caught[site], value) for site, value in expected.values.items())
    with pytest.raises(
        wb.UnsupportedError, match="up, layer 1: the weights of Bytes are quantised"
    ):
        model.factors(TEXTS[0], best, [("up", 1)])


# torch says that torch.ao will be gone, and its packed dtypes with it
@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::UserWarning:torch")
def test_weights_that_torch_has_packed_are_refused() -> None:
    packed = torch.ao.quantization.quantize_dynamic(hf_model("llama", torch.float32), {nn.Linear})
    with pytest.raises(
        wb.UnsupportedError,
        match=r"q_proj.* of LlamaForCausalLM is a .*packed by torch \(quantize_dynamic\)",
    ) as caught:
        wb.load(packed.eval(), tokenizer())
    assert "\n" not in str(caught.value)
