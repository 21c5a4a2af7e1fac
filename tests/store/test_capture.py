"""Capturing goes on where it ended, and refuses before it runs what could not be kept."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

import workbench as wb
from lenses import LogitLens
from tests.test_passes import counted
from tests.tiny import hf_model, model, tokenizer
from workbench.store import capture as capture_module
from workbench.store.activations import Store
from workbench.store.capture import capture

TEXTS = [f"prompt {n} " + "x" * (n % 3) for n in range(10)]


class Stopped(Exception):
    pass


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of every file, which a rewrite would change."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        str(path.relative_to(folder)): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in files
    }


def stopped_capture(out: Path, monkeypatch: pytest.MonkeyPatch, shards: int) -> None:
    """A capture in shards of three prompts that fails after some of the four shards."""
    live = wb.load(hf_model("gpt2", torch.float32), tokenizer())
    write, written = capture_module.write_states, []

    def failing(folder: Path, *args: Any) -> None:
        write(folder, *args)
        if len(written) == shards:
            raise Stopped
        written.append(folder)

    monkeypatch.setattr(capture_module, "write_states", failing)
    with pytest.raises(Stopped):
        capture(live, TEXTS, sites="resid_post", out=out, shard_size=3)
    monkeypatch.undo()


@pytest.mark.parametrize("shards", [0, 2])
def test_a_stopped_capture_goes_on(
    shards: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = model("gpt2", torch.float32)
    stopped_capture(tmp_path / "acts", monkeypatch, shards)
    before = contents(tmp_path / "acts")
    assert len([path for path in before if path.endswith("activations.safetensors")]) == shards
    with pytest.raises(wb.ResultError, match=f"lacks {4 - shards} of 4 shards"):
        Store.open(tmp_path / "acts")
    with counted(live) as rows:
        store = capture(live, TEXTS, sites="resid_post", out=tmp_path / "acts", shard_size=3)
    trial, finished = 1, 3 * shards
    assert sum(rows) == trial + len(TEXTS) - finished
    assert contents(tmp_path / "acts").items() >= before.items()
    whole = capture(live, TEXTS, sites="resid_post", out=tmp_path / "whole", shard_size=3)
    resumed, at_once = (LogitLens()(s, TEXTS).data for s in (store, whole))
    assert resumed.drop_attrs().identical(at_once.drop_attrs())


def test_a_finished_capture_writes_nothing(tmp_path: Path) -> None:
    live = model("gpt2", torch.float32)
    capture(live, TEXTS, sites="resid_post", out=tmp_path / "acts")
    before = contents(tmp_path / "acts")
    seen: list[wb.Progress] = []
    capture(live, TEXTS, sites="resid_post", out=tmp_path / "acts", progress=seen.append)
    assert contents(tmp_path / "acts") == before
    assert seen == []


def other_weights() -> wb.TorchModel:
    hf = hf_model("gpt2", torch.float32)
    with torch.no_grad():
        hf.transformer.h[1].mlp.c_fc.weight[0, 0] += 1
    return wb.load(hf, tokenizer())


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"model": other_weights}, "its model.weights is "),
        ({"model": lambda: model("gpt2", torch.bfloat16)}, 'its model.dtype is "float32", here "b'),
        ({"prompts": [*TEXTS[:-1], "y"]}, "its prompts is "),
        ({"prompts": [*TEXTS, "y"]}, "its n_prompts is 10, here 11"),
        ({"prompts": [wb.Prompt(text, target="a") for text in TEXTS]}, "its prompts is "),
        (
            {"sites": ["resid_post", "mlp_out"]},
            r'its sites has \[\["mlp_out", 1\], \["mlp_out", 2\], \["mlp_out", 3\]\] only here;',
        ),
        ({"positions": "last"}, 'its positions is "all", here "last"'),
        ({"shard_size": 4}, "its shard_size is 3, here 4"),
    ],
)
def test_another_capture_is_refused_with_the_difference(
    change: dict[str, Any], difference: str, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {
        "model": lambda: model("gpt2", torch.float32),
        "prompts": TEXTS,
        "sites": "resid_post",
        "out": tmp_path / "acts",
        "shard_size": 3,
    }
    capture(settings.pop("model")(), **settings)
    before = contents(tmp_path / "acts")
    changed = {"model": lambda: model("gpt2", torch.float32)} | settings | change
    with pytest.raises(wb.ResultError, match=difference):
        capture(changed.pop("model")(), **changed)
    assert contents(tmp_path / "acts") == before


def test_cancel_keeps_the_finished_shards(tmp_path: Path) -> None:
    live = model("gpt2", torch.float32)
    cancel = threading.Event()

    def after_two_shards(progress: wb.Progress) -> None:
        if progress.done >= sum(map(len, TEXTS[:6])):
            cancel.set()

    with pytest.raises(wb.Cancelled, match="cancelled after 2 of 4 shards, which are kept in"):
        capture(
            live,
            TEXTS,
            sites="resid_post",
            out=tmp_path / "acts",
            shard_size=3,
            progress=after_two_shards,
            cancel=cancel,
        )
    assert sorted(p.name for p in (tmp_path / "acts" / "shards").iterdir()) == [
        "00000000",
        "00000001",
    ]


def test_progress_goes_over_all_shards(tmp_path: Path) -> None:
    seen: list[wb.Progress] = []
    capture(
        model("gpt2", torch.float32),
        TEXTS,
        sites="resid_post",
        out=tmp_path / "acts",
        shard_size=3,
        batch_size=2,
        progress=seen.append,
    )
    total = sum(map(len, TEXTS))
    assert (seen[0].done, seen[-1].done) == (0, total)
    assert {p.total for p in seen} == {total}
    assert [p.done for p in seen] == sorted({p.done for p in seen})
    assert [p.seconds for p in seen] == sorted(p.seconds for p in seen)


def test_out_of_memory_halves_the_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    live = wb.load(hf_model("gpt2", torch.float32), tokenizer())
    read = live.read

    def scarce(batch: wb.Batch, *args: Any, **kwargs: Any) -> Any:
        if batch.ids.numel() > 40:
            raise torch.OutOfMemoryError("injected")
        return read(batch, *args, **kwargs)

    monkeypatch.setattr(live, "read", scarce)
    store = capture(live, TEXTS, sites="resid_post", out=tmp_path / "acts")
    assert live.token_limit is not None
    states = store.capture(store.prompts, [("resid_post", 3)])
    expected = model("gpt2", torch.float32).capture(TEXTS, [("resid_post", 3)])
    # another batch rounds otherwise: a few float32 roundings at the size of the states, about 4
    torch.testing.assert_close(
        states["resid_post", 3], expected["resid_post", 3], rtol=0, atol=1e-5
    )


def test_a_shard_holds_about_as_many_bytes_as_it_should(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture_module, "SHARD_BYTES", 4 * 16 * 4 * 25)
    capture(model("gpt2", torch.float32), TEXTS, sites="resid_post", out=tmp_path / "acts")
    shards = sorted(p.name for p in (tmp_path / "acts" / "shards").iterdir())
    assert shards == [f"{n:08d}" for n in range(5)]  # two prompts of 9 to 11 tokens are below 25


class OwnModel(LlamaForCausalLM):
    pass


class OwnTokenizer(PreTrainedTokenizerFast):
    pass


def test_code_that_a_store_cannot_keep_is_refused(tmp_path: Path) -> None:
    own = OwnModel(hf_model("llama").config).eval()
    with pytest.raises(wb.UnsupportedError, match="OwnModel: its class OwnModel is not transf"):
        capture(wb.load(own, tokenizer()), "x", sites="resid_post", out=tmp_path / "acts")
    own_tokenizer = OwnTokenizer(tokenizer_object=tokenizer().backend_tokenizer)
    loaded = wb.load(hf_model("gpt2"), own_tokenizer)
    with pytest.raises(wb.UnsupportedError, match="its class OwnTokenizer is not transformers'"):
        capture(loaded, "x", sites="resid_post", out=tmp_path / "acts")
    assert not (tmp_path / "acts").exists()


def test_a_last_step_that_does_more_is_refused(tmp_path: Path) -> None:
    live = wb.load(hf_model("gpt2"), tokenizer())
    live.hf.lm_head.register_forward_hook(lambda module, args, out: out * 1.01)
    with pytest.raises(wb.ModelError, match="its last step is more than its final norm"):
        capture(live, "x", sites="resid_post", out=tmp_path / "acts")
    assert not (tmp_path / "acts").exists()


def test_a_head_of_other_parts_is_refused(tmp_path: Path) -> None:
    live = wb.load(hf_model("gpt2"), tokenizer())
    live.hf.lm_head = torch.nn.Sequential(live.hf.lm_head)
    with pytest.raises(wb.ModelError, match="cannot be built again from its config") as caught:
        capture(live, "x", sites="resid_post", out=tmp_path / "acts")
    assert "\n" not in str(caught.value)


def test_a_store_is_no_model_to_capture(tmp_path: Path) -> None:
    store = capture(model("gpt2"), "x", sites="resid_post", out=tmp_path / "acts")
    with pytest.raises(wb.UnsupportedError, match="engine 'store' cannot be captured"):
        capture(store, "x", sites="resid_post", out=tmp_path / "again")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"sites": "resid"}, wb.SettingError, "unknown site 'resid'"),
        ({"sites": [("resid_post", 4)]}, wb.SettingError, "resid_post has no layer 4"),
        ({"sites": ["q"]}, wb.UnsupportedError, "q, layer 1 is not stored: read it"),
        ({"sites": []}, wb.SettingError, "no sites"),
        ({"positions": "first"}, wb.SettingError, "unknown positions 'first'"),
        ({"positions": 10}, wb.SettingError, "position 10 is outside prompt"),
        ({"positions": "subject"}, wb.PromptError, "has no subject"),
        ({"positions": slice(60, None)}, wb.SettingError, "select no token of any prompt"),
        ({"positions": slice(0, None, 0)}, wb.SettingError, "positions slice.*indices or a slice"),
        ({"batch_size": 0}, wb.SettingError, "batch_size is 0"),
        ({"shard_size": 0}, wb.SettingError, "shard_size is 0"),
        ({"shard_size": 2.0}, wb.SettingError, "shard_size is 2.0"),
        ({"prompts": ["x" * 65]}, wb.PromptError, "65 tokens"),
        ({"prompts": []}, wb.PromptError, "no prompts"),
        ({"prompts": [wb.Prompt("x", labels={1})]}, wb.PromptError, "cannot be stored as JSON"),
        ({"prompts": [wb.Prompt("x", labels=(1,))]}, wb.PromptError, "cannot be stored as JSON"),
        ({"prompts": [wb.Prompt("x", labels=float("nan"))]}, wb.PromptError, "as JSON"),
    ],
)
def test_bad_calls_write_nothing(
    change: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    settings = {"prompts": TEXTS, "sites": "resid_post", "out": tmp_path / "acts"} | change
    with pytest.raises(error, match=message):
        capture(model("gpt2"), **settings)
    assert not (tmp_path / "acts").exists()


def test_a_site_that_the_family_has_not_is_refused_first(tmp_path: Path) -> None:
    with pytest.raises(wb.UnsupportedError, match="gpt_neox has no resid_mid"):
        capture(model("gpt_neox"), TEXTS, sites="resid_mid", out=tmp_path / "acts")
    assert not (tmp_path / "acts").exists()


def test_a_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(wb.ResultError, match="holds 'thesis.tex' and no manifest"):
        capture(model("gpt2"), "x", sites="resid_post", out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("out", ["absent/acts", "file", "/proc/acts"])
def test_a_folder_that_cannot_be_made_is_named(out: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(wb.ResultError, match=f"{out} cannot be used"):
        capture(model("gpt2"), "x", sites="resid_post", out=tmp_path / out)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
