"""Stored activations give what the live model gives, bit for bit, without the model."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import workbench as wb
from lenses import LogitLens
from tests.test_passes import LossOfNext, MeanState
from tests.tiny import FAMILIES, hf_model, model, tokenizer
from workbench.store import states as states_module
from workbench.store.activations import Store
from workbench.store.capture import capture
from workbench.store.description import Description
from workbench.store.seals import seal

TEXTS = ["The Eiffel Tower", "Rome", "a b c d e f g h", "x", "the sea"]
PROMPTS = wb.PromptSet(
    tuple(
        wb.Prompt(text, target="a", foil=98, group=text[:1], labels=[n], extra={"line": n})
        for n, text in enumerate(TEXTS)
    )
)
ROOT = Path(__file__).parent.parent.parent


def measured(store: wb.Model, *instruments: wb.Instrument) -> list[wb.Result]:
    return wb.measure(store, PROMPTS, instruments)


def assert_equal(stored: wb.Result, live: wb.Result) -> None:
    """The same dataset to the last bit; the provenance says where it was read."""
    assert stored.data.drop_attrs(deep=False).identical(live.data.drop_attrs(deep=False))
    mine, theirs = stored.provenance, live.provenance
    assert mine["model"].pop("read_from") == "a store of activations"
    for provenance in (mine, theirs):
        provenance.pop("date")
    assert mine == theirs


@pytest.fixture
def gpt2(tmp_path: Path) -> Store:
    return capture(model("gpt2", torch.float32), PROMPTS, sites="resid_post", out=tmp_path / "acts")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_reads_as_live(family: str, dtype: torch.dtype, tmp_path: Path) -> None:
    live = model(family, dtype)
    sites = ["resid_post", "resid_pre", "attn_out", "mlp_out"]
    capture(live, PROMPTS, sites=sites, out=tmp_path / "acts")
    store = Store.open(tmp_path / "acts", device="cpu")
    instruments = [LogitLens(sites=("resid_post", "resid_pre", "mlp_out")), MeanState()]
    for stored, expected in zip(
        measured(store, *instruments), measured(live, *instruments), strict=True
    ):
        assert_equal(stored, expected)


def test_a_store_brings_its_own_prompts(gpt2: Store) -> None:
    live = wb.measure(model("gpt2", torch.float32), PROMPTS, [LogitLens(top_k=2), MeanState()])
    opened = wb.Store.open(gpt2.folder)
    for mine, theirs in zip(
        wb.measure(opened, [LogitLens(top_k=2), MeanState()]), live, strict=True
    ):
        assert_equal(mine, theirs)
    with pytest.raises(wb.SettingError, match="no prompts"):
        wb.measure(model("gpt2"), [LogitLens()])


def test_states_are_kept_in_the_models_own_dtype(tmp_path: Path) -> None:
    live = model("llama", torch.bfloat16)
    capture(live, PROMPTS, sites=["resid_post", "logits"], out=tmp_path / "acts")
    (file,) = (tmp_path / "acts" / "shards").rglob("*.safetensors")
    found = load_file(file)
    caught = live.capture(PROMPTS[:1], ["resid_post", "logits"])
    for layer in range(4):
        kept = found[f"resid_post.{layer}"]
        assert kept.dtype == torch.bfloat16
        # Another batch shape rounds otherwise: a few steps of bfloat16's 2^-8.
        torch.testing.assert_close(
            kept[: len(caught.places)], caught["resid_post", layer], rtol=0.03, atol=0.03
        )
    assert found["logits.3"].shape == (len(found["token"]), 257)
    assert found["offset"].tolist() == np.cumsum([0] + [len(t) + 1 for t in TEXTS]).tolist()
    assert found["token"][0] == 256
    assert found["position"][:4].tolist() == [0, 1, 2, 3]
    assert found["prompt"].tolist() == [n for n, t in enumerate(TEXTS) for _ in range(len(t) + 1)]


@pytest.mark.parametrize("shard_size", [1, 2, 5])
def test_shards_change_nothing_but_rounding(shard_size: int, tmp_path: Path) -> None:
    live = model("qwen2", torch.float64)
    store = capture(live, PROMPTS, sites="resid_post", out=tmp_path / "acts", shard_size=shard_size)
    assert len(list((tmp_path / "acts" / "shards").iterdir())) == -(-len(TEXTS) // shard_size)
    stored, expected = (measured(m, LogitLens())[0].data for m in (store, live))
    assert (stored.position == expected.position).all()
    assert (stored.prompt == expected.prompt).all()
    for name in ("entropy", "kl", "target_logprob"):
        # float64 in another batch: some hundred roundings of 2e-16
        np.testing.assert_allclose(stored[name], expected[name], rtol=0, atol=1e-12)


@pytest.mark.parametrize("positions", ["last", 1, slice(0, 5, 2), [0, -1]])
def test_fewer_positions_than_stored(positions: Any, tmp_path: Path) -> None:
    prompts = TEXTS[:3]
    live = model("gpt2", torch.float32)
    store = capture(live, prompts, sites="resid_post", out=tmp_path / "acts")
    lens = LogitLens(positions=positions)
    assert_equal(lens(store, prompts), lens(live, prompts))


@pytest.mark.parametrize("positions", ["last", "last_subject", slice(1, 3), (0, -2)])
def test_positions_that_were_stored_alone(positions: Any, tmp_path: Path) -> None:
    prompts = [wb.Prompt("The Eiffel Tower", subject="Eiffel"), wb.Prompt("Rome!", subject=(0, 4))]
    live = model("gpt2", torch.float32)
    capture(live, prompts, sites="resid_post", positions=positions, out=tmp_path / "acts")
    store = Store.open(tmp_path / "acts")
    lens = LogitLens(positions=positions)
    assert_equal(lens(store, store.prompts), lens(live, prompts))


def test_prompts_in_which_positions_select_nothing(tmp_path: Path) -> None:
    live = model("gpt2", torch.float32)
    store = capture(
        live, TEXTS, sites="resid_post", positions=slice(2, 6), out=tmp_path / "acts", shard_size=4
    )
    lens = LogitLens(positions=slice(3, 5))
    stored, expected = lens(store, TEXTS).data, lens(live, TEXTS).data
    assert stored.prompt.values.tolist() == [0, 0, 1, 2, 2, 4, 4]
    assert (stored.position == expected.position).all()
    np.testing.assert_allclose(stored.entropy, expected.entropy, rtol=0, atol=1e-5)


def test_a_part_of_the_prompts_keeps_their_names(gpt2: Store) -> None:
    lens = LogitLens(positions="last")
    assert LogitLens()(gpt2, gpt2.prompts.subset([3])).data.prompt.values.tolist() == [3]
    part = lens(gpt2, gpt2.prompts.subset([1, 4])).data
    whole = lens(gpt2, gpt2.prompts).data
    np.testing.assert_allclose(part.entropy, whole.entropy.isel(place=[1, 4]), rtol=0, atol=1e-5)


def test_names_of_a_subset_come_back(tmp_path: Path) -> None:
    live = model("gpt2", torch.float32)
    capture(live, PROMPTS.subset([2, 4]), sites="resid_post", out=tmp_path / "acts")
    store = Store.open(tmp_path / "acts")
    assert store.prompts.names == [2, 4]
    assert list(store.prompts) == [PROMPTS[2], PROMPTS[4]]


def test_prompts_that_are_equal_have_each_its_own_states(tmp_path: Path) -> None:
    live = model("gpt2", torch.float32)
    store = capture(live, ["abc", "abc"], sites="resid_post", out=tmp_path / "acts", shard_size=1)
    assert [store.encode(prompt).number for prompt in store.prompts] == [0, 1]
    assert store.encode(wb.Prompt("abc")).number == 0


def test_it_says_what_the_model_says(gpt2: Store) -> None:
    live = model("gpt2", torch.float32)
    for name in ("name", "n_layers", "d_model", "vocab_size", "dtype", "device"):
        assert getattr(gpt2, name) == getattr(live, name), name
    assert gpt2.tokens.fingerprint == live.tokens.fingerprint
    assert len(gpt2) == len(TEXTS)
    assert gpt2.provenance() == live.provenance() | {"read_from": "a store of activations"}
    assert repr(gpt2) == (
        "<store of GPT2LMHeadModel: 5 prompts, positions 'all', resid_post [0, 1, 2, 3]>"
    )


@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
def test_gradients_flow_through_the_stored_last_step(family: str, tmp_path: Path) -> None:
    live = model(family, torch.float64)
    store = capture(live, PROMPTS, sites="resid_post", out=tmp_path / "acts")
    grads = []
    for each in (live, store):
        resid = torch.linspace(-1, 1, 32, dtype=torch.float64).reshape(2, 16).requires_grad_()
        each.readout(resid)[:, 5].sum().backward()
        assert resid.grad is not None
        grads.append(resid.grad)
    assert torch.equal(*grads)


def test_a_new_process_without_the_models_folder(tmp_path: Path) -> None:
    folder, acts = tmp_path / "tiny", tmp_path / "acts"
    hf_model("gemma2", torch.float32).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    live = wb.load(folder, device="cpu")
    capture(live, PROMPTS, sites="resid_post", positions="last", out=acts)
    expected = LogitLens(positions="last")(live, PROMPTS).rows()
    shutil.rmtree(folder)
    code = (
        "import sys, torch, workbench as wb; from lenses import LogitLens\n"
        "from workbench.store.activations import Store\n"
        "torch.set_num_threads(1); store = Store.open(sys.argv[1], device='cpu')\n"
        "LogitLens(positions='last')(store, store.prompts).save(sys.argv[2])"
    )
    out = tmp_path / "rows.json"
    subprocess.run([sys.executable, "-c", code, acts, out], check=True, cwd=ROOT)
    assert json.loads(out.read_text()) == expected


def test_blocks_and_embedding_are_not_stored(tmp_path: Path) -> None:
    capture(model("llama", torch.float32), PROMPTS, sites="resid_post", out=tmp_path / "acts")
    kept = load_file(tmp_path / "acts" / "model" / "readout.safetensors")
    assert {name: tuple(t.shape) for name, t in kept.items()} == {
        "final_norm.weight": (16,),
        "unembedding.weight": (257, 16),
    }


def test_the_rebuilt_model_holds_no_more_than_its_last_step(gpt2: Store) -> None:
    rebuilt = gpt2._last_step
    real = [p for p in rebuilt.hf.parameters() if not p.is_meta]
    held = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in real}
    last_step = 257 * 16 + 2 * 16
    assert sum(held.values()) == 4 * (last_step + len(["wte", "wpe"]))


def test_only_plain_files_are_written(gpt2: Store) -> None:
    files = sorted(str(p.relative_to(gpt2.folder)) for p in gpt2.folder.rglob("*") if p.is_file())
    assert files == [
        "manifest.json",
        "model/config.json",
        "model/readout.safetensors",
        "model/seal.json",
        "model/tokenizer/tokenizer.json",
        "model/tokenizer/tokenizer_config.json",
        "prompts/prompts.jsonl",
        "shards/00000000/activations.safetensors",
        "shards/00000000/seal.json",
    ]


def test_a_read_takes_the_rows_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    live = model("gpt2", torch.float32)
    store = capture(live, PROMPTS, sites="resid_post", out=tmp_path / "acts", shard_size=2)
    store.capture(store.prompts[2:4], [("resid_post", 2)])  # what is first read is checked
    opened: list[str] = []
    taken: list[tuple[str, slice]] = []

    class Spy:
        def __init__(self, path: Path, framework: str) -> None:
            opened.append(path.parent.name)
            self.file = safe_open(path, framework)

        def __enter__(self) -> Spy:
            self.file.__enter__()
            return self

        def __exit__(self, *reason: object) -> None:
            self.file.__exit__(*reason)

        def get_tensor(self, name: str) -> torch.Tensor:
            assert name == "offset"
            return self.file.get_tensor(name)

        def get_slice(self, name: str) -> SpySlice:
            return SpySlice(name, self.file.get_slice(name))

    class SpySlice:
        def __init__(self, name: str, inner: Any) -> None:
            self.name, self.inner = name, inner

        def __getitem__(self, rows: slice) -> torch.Tensor:
            taken.append((self.name, rows))
            return self.inner[rows]

    monkeypatch.setattr(states_module, "safe_open", Spy)
    caught = store.capture(store.prompts[2:4], [("resid_post", 2)], [0, -1])
    assert opened == ["00000001"]
    assert taken == [("resid_post.2", slice(0, 15)), ("resid_post.2", slice(15, 16))]
    assert caught["resid_post", 2].shape == (3, 16)
    taken.clear()
    store.capture(store.prompts[2:4], [("resid_post", 2)], "last")
    assert taken == [("resid_post.2", slice(14, 15)), ("resid_post.2", slice(15, 16))]


def test_instruments_that_run_the_model_are_refused(gpt2: Store) -> None:
    with pytest.raises(wb.UnsupportedError, match="loss_of_next runs the model itself"):
        wb.measure(gpt2, [LogitLens(), LossOfNext()])
    batch = gpt2.batch(gpt2.prompts)
    edit = object()
    refused: Mapping[str, Any] = {
        "edit a forward pass": lambda: gpt2.intervene(batch, [edit]),
        "restart a forward pass": lambda: gpt2.tail(batch, 1, torch.zeros(1)),
        "differentiate": lambda: gpt2.grad(batch, torch.sum, "resid_post"),
        "run a block": lambda: gpt2.block(batch, 1, torch.zeros(1)),
        "give keys and values": lambda: gpt2.keys_values(batch),
        "put on an adapter": lambda: gpt2.with_adapter("lora"),
        "generate text": lambda: gpt2.generate(batch),
    }
    for what, call in refused.items():
        with pytest.raises(wb.UnsupportedError, match=f"cannot {what}: use the model"):
            call()
    with pytest.raises(wb.UnsupportedError, match="cannot edit"):
        gpt2.read(batch, [wb.Read("resid_post")], edits=[edit])
    with pytest.raises(wb.UnsupportedError, match="cannot restart"):
        gpt2.read(batch, [wb.Read("resid_post")], start=(1, torch.zeros(1)))
    with pytest.raises(wb.UnsupportedError, match="cannot differentiate"):
        gpt2.factors(batch, torch.sum, [("ff1", 1)])


def test_what_was_not_stored_is_refused_by_name(tmp_path: Path) -> None:
    live = model("gpt2", torch.float32)
    sites = [("resid_post", 1), ("resid_post", 3), "attn_out"]
    store = capture(live, PROMPTS, sites=sites, positions="last", out=tmp_path / "acts")
    holds = r"the store holds resid_post \[1, 3\], attn_out \[1, 2, 3\]"
    with pytest.raises(wb.ResultError, match=f"resid_post, layer 0 was not stored: {holds}"):
        store.require([LogitLens(positions="last")], store.prompts)
    with pytest.raises(wb.ResultError, match="mlp_out, layer 1 was not stored"):
        store.capture(store.prompts, ["mlp_out"], "last")
    with pytest.raises(
        wb.ResultError, match="position 0 of prompt 'The Eiffel Tower' was not stored.*'last'"
    ):
        store.capture(store.prompts, ["attn_out"], "all")
    with pytest.raises(wb.PromptError, match="prompt 'Paris' was not captured"):
        LogitLens()(store, "Paris")
    with pytest.raises(wb.PromptError, match="prompt 'Rome' was not captured as it stands"):
        store.encode(wb.Prompt("Rome", target=" x"))


def broken(folder: Path, path: str, content: bytes | None) -> None:
    (folder / path).write_bytes(content or (folder / path).read_bytes()[:-7])


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        ("manifest.json", b"{", "manifest.json cannot be read"),
        ("manifest.json", b"[]", "expected a JSON object"),
        ("manifest.json", b'{"kind": "report"}', "is no store of activations"),
        ("manifest.json", b'{"kind": "activations", "format": 1}', "this version reads format 2"),
        ("manifest.json", b'{"kind": "activations", "format": 2}', "KeyError.*capture again"),
        ("prompts/prompts.jsonl", None, "prompts.jsonl cannot be read"),
        ("prompts/prompts.jsonl", b"1\n", "it is not as it was written"),
        ("model/tokenizer/tokenizer.json", None, "tokenizer.json cannot be read"),
        ("model/config.json", None, "config.json cannot be read"),
        ("model/readout.safetensors", None, "readout.safetensors cannot be read"),
        ("model/seal.json", None, "seal.json cannot be read: it is not as it was written"),
        ("shards/00000000/seal.json", b"[]", "seal.json cannot be read: it is not as it was"),
        ("shards/00000000/activations.safetensors", None, "activations.safetensors cannot be read"),
        ("shards/00000000/activations.safetensors", b"", "activations.safetensors cannot be read"),
    ],
)
def test_broken_files_are_named(
    path: str, content: bytes | None, message: str, gpt2: Store
) -> None:
    broken(gpt2.folder, path, content)
    with pytest.raises(wb.ResultError, match=message) as caught:
        LogitLens()(Store.open(gpt2.folder), PROMPTS)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("manifest.json", "no manifest.json"),
        ("model", "lacks 'model': call capture again"),
        ("prompts", "lacks 'prompts'"),
        ("shards/00000001", r"lacks 1 of 3 shards \(00000001\)"),
        ("shards", "lacks 3 of 3 shards"),
        ("prompts/prompts.jsonl", "prompts.jsonl cannot be read"),
        ("model/tokenizer/tokenizer.json", "tokenizer.json cannot be read: No such file"),
        ("model/config.json", "config.json cannot be read: No such file"),
        ("model/readout.safetensors", "readout.safetensors cannot be read: No such file"),
        ("model/seal.json", "seal.json cannot be read: No such file"),
        ("shards/00000001/seal.json", "seal.json cannot be read: No such file"),
        ("shards/00000001/activations.safetensors", "activations.safetensors cannot be read"),
    ],
)
def test_missing_files_are_named(path: str, message: str, tmp_path: Path) -> None:
    folder = tmp_path / "acts"
    live = model("gpt2", torch.float32)
    capture(live, PROMPTS, sites="resid_post", out=folder, shard_size=2)
    target = folder / path
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    with pytest.raises(wb.ResultError, match=message) as caught:
        LogitLens()(Store.open(folder), PROMPTS)
    assert "\n" not in str(caught.value)


def test_a_shortened_prompt_file_is_refused(gpt2: Store) -> None:
    path = gpt2.folder / "prompts" / "prompts.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(wb.ResultError, match="it is not as it was written"):
        Store.open(gpt2.folder)


def test_another_tokenizer_is_refused(gpt2: Store) -> None:
    path = gpt2.folder / "model" / "tokenizer" / "tokenizer.json"
    path.write_text(path.read_text().replace('"a": 64', '"a": 65').replace('"b": 65', '"b": 64'))
    seal(gpt2.folder / "model", Description.read(gpt2.folder).fingerprint)
    with pytest.raises(wb.ResultError, match="its tokenizer is read otherwise"):
        Store.open(gpt2.folder)


def test_no_folder_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(wb.ResultError, match="no manifest.json"):
        Store.open(tmp_path / "nothing")
