"""Tuned lenses: the identity, the gradient, held-out KL on Atlas, checkpoints, files and refusals."""

from __future__ import annotations

import itertools
import json
import struct
import threading
from pathlib import Path

import pytest
import torch
from torch import Tensor

import workbench as wb
from lenses import Corpus, LogitLens, Translator, TunedFit, TunedLens, load_lens
from lenses.translators.translator import Made
from lenses.translators.tuned_fit import add_gradients
from tests.tiny import LAYERS, hf_model, model, tokenizer
from workbench.atlas.corpus import sentences
from workbench.fitted_model import identity

TEXTS = ["The Eiffel Tower", "a b c d e f", "Rome is old", "x y z", "one two", "what?"]
BRIEF = TunedFit(steps=4, tokens=30, batch_tokens=32, held_out=0.2)


def noisy(hooked: wb.TorchModel, scale: float = 0.3) -> TunedLens:
    shapes = TunedLens.shapes(hooked.n_layers, hooked.d_model)
    generator = torch.Generator().manual_seed(0)
    tensors = {
        name: scale * torch.randn(shape, generator=generator, dtype=torch.float64)
        for name, shape in shapes.items()
    }
    return TunedLens(tensors, Made(identity(hooked)))


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "bert"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_an_untrained_lens_is_the_logit_lens_exactly(family: str, dtype: torch.dtype) -> None:
    hooked = model(family, dtype)
    plain = LogitLens()(hooked, TEXTS).data
    tuned = LogitLens(lens=TunedLens.untrained(hooked))(hooked, TEXTS).data
    assert tuned.drop_attrs().identical(plain.drop_attrs())


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_gradients_equal_finite_differences(family: str) -> None:
    """Of the plain formula, in directions of every tensor."""
    hooked = model(family)
    caught = hooked.capture(TEXTS, ["resid_post"])
    states = [caught["resid_post", layer] for layer in range(LAYERS + 1)]
    lens = noisy(hooked)
    parameters = {name: tensor.clone() for name, tensor in lens.tensors.items()}
    for parameter in parameters.values():
        parameter.grad = torch.zeros_like(parameter)
    add_gradients(parameters, states, hooked.readout, 0.5)
    final = hooked.readout(states[-1]).log_softmax(-1)

    def loss(tensors: dict[str, Tensor]) -> float:
        moved = TunedLens(tensors, lens.made)
        rows = [hooked.readout(moved(i, s)).log_softmax(-1) for i, s in enumerate(states[:-1])]
        return 0.5 * float(sum((final.exp() * (final - row)).sum() for row in rows))

    # Llama's and Gemma's norms compute in float32, so that a smaller step would measure rounding.
    step, rel = (1e-5, 1e-7) if family == "gpt2" else (1e-3, 1e-3)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in parameters.items():
        way = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        ends = [loss(lens.tensors | {name: lens.tensors[name] + s * way}) for s in (step, -step)]
        assert parameter.grad is not None
        assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(
            float((parameter.grad * way).sum()), rel=rel
        )


def test_on_atlas_held_out_kl_falls_at_every_layer() -> None:
    atlas = wb.load()
    texts = dict.fromkeys(one.text for one in itertools.islice(sentences(7), 300))
    seen: list[wb.Progress] = []
    fit = TunedFit(steps=20, tokens=256, rate=1.0)
    lens = fit(atlas, list(texts), progress=seen.append)
    before, after = lens.made.held_out["before"], lens.made.held_out["after"]
    assert len(before) == atlas.n_layers
    assert all(new < old for new, old in zip(after, before, strict=True)), (before, after)
    assert seen[-1].done == seen[-1].total
    # the result's own KL of a held-out prompt says the same
    held = next(t for t in texts if Corpus.of(atlas, t).hashes[0] in lens.made.corpus["held_out"])
    kl = [LogitLens(lens=it)(atlas, held).data.kl.mean("place")[0] for it in ("logit", lens)]
    assert float(kl[1][:4].sum()) < float(kl[0][:4].sum())
    assert float(kl[1][-1]) < 1e-5  # of float32, as the statistics say


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_a_resumed_fit_is_the_same_bit_for_bit(optimiser: str, tmp_path: Path) -> None:
    hooked, stop = model("gpt2", torch.float32), threading.Event()
    fit = TunedFit(steps=6, tokens=20, batch_tokens=16, optimiser=optimiser)  # type: ignore[arg-type]
    whole = fit(hooked, TEXTS)
    kept = tmp_path / "kept.safetensors"

    def after_two(progress: wb.Progress) -> None:
        if progress.done > progress.total / 3:
            stop.set()

    with pytest.raises(wb.Cancelled, match="kept in"):
        fit(hooked, TEXTS, checkpoint=kept, progress=after_two, cancel=stop)
    seen: list[wb.Progress] = []
    again = fit(hooked, TEXTS, checkpoint=kept, progress=seen.append)
    assert all(torch.equal(again.tensors[n], whole.tensors[n]) for n in whole.tensors)
    assert again.hash == whole.hash
    with pytest.raises(wb.ResultError, match="is of another fit: its settings is"):
        TunedFit(steps=7, tokens=20)(hooked, TEXTS, checkpoint=kept)


def test_files_and_their_refusals(tmp_path: Path) -> None:
    hooked = model("gpt2")
    lens = BRIEF(hooked, TEXTS)
    path = lens.save(tmp_path / "lens.safetensors")
    again = load_lens(path)
    assert (again.hash, again.made) == (lens.hash, lens.made)
    assert BRIEF(hooked, TEXTS).hash == lens.hash  # equal fits, equal files
    assert all(torch.equal(again.tensors[n], lens.tensors[n]) for n in lens.tensors)
    assert lens.made.corpus["held_out"] == sorted(set(Corpus.of(hooked, TEXTS).hashes))[:1]
    other = wb.load(hf_model("gpt2", torch.float32), tokenizer())
    own, theirs = hooked.provenance()["weights"], other.provenance()["weights"]
    with pytest.raises(wb.ModelError, match=f"{own}.*{theirs}"):
        LogitLens(lens=path.as_posix())(other, TEXTS)
    for content, said in (
        (path.read_bytes()[:-100], "was cut short"),
        (b"PK\3\4 no such thing", "no safetensors file"),
        (header(path, lambda it: it | {"kind": "sae"}), "no lens of this workbench"),
        (header(path, lambda it: "x"), "no lens of this workbench"),
        (header(path, lambda it: it | {"model": {"n_layers": 3}}), "no lens of this workbench"),
        (header(path, lambda it: it["model"].pop("weights") and it), "no lens of this workbench"),
        (header(path, lambda it: it | {"format": 9}), "broken.safetensors: another format"),
        (header(path, lambda it: it["model"].update(d_model=8) or it), "expected"),
    ):
        broken = tmp_path / "broken.safetensors"
        broken.write_bytes(content)
        with pytest.raises(wb.ResultError, match=said) as caught:
            load_lens(broken)
        assert "\n" not in str(caught.value)
    with pytest.raises(wb.ResultError, match="expected a suffix"):
        lens.save(tmp_path / "lens.pt")


def header(path: Path, change) -> bytes:  # type: ignore[no-untyped-def]
    """The file with what it says of itself changed."""
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    said = json.loads(raw[8 : 8 + length])
    own = json.loads(said["__metadata__"]["lens"])
    said["__metadata__"]["lens"] = json.dumps(change(own))
    new = json.dumps(said).encode()
    return struct.pack("<Q", len(new)) + new + raw[8 + length :]


def test_a_text_file_is_cut_into_pieces(tmp_path: Path) -> None:
    hooked = model("llama")  # a BOS before every text
    path = tmp_path / "text.txt"
    path.write_text("abcdefghij\nklm", encoding="utf-8")
    corpus = Corpus.read_text(hooked, path, length=6)
    ids = [one.ids for one in corpus.prompts]
    assert {i[0] for i in ids} == {256}
    assert [len(i) for i in ids] == [6, 6, 5]
    joined = tuple(token for one in ids for token in one[1:])
    assert joined == hooked.tokens.ids("abcdefghij\nklm")
    for length, said in ((1, "expected 2..64 tokens"), (65, "expected 2..64")):
        with pytest.raises(wb.SettingError, match=said):
            Corpus.read_text(hooked, path, length=length)
    with pytest.raises(wb.PromptError, match="no text file"):
        Corpus.read_text(hooked, tmp_path / "none.txt", length=6)


def test_equal_prompts_stay_on_one_side() -> None:
    hooked = model("gpt2")
    corpus = Corpus.of(hooked, [wb.Prompt(t, id=f"{n}{t}") for n in "ab" for t in TEXTS])
    fitted, held = corpus.split(0.3)
    assert len(held) == 4
    assert not set(fitted.hashes) & set(held.hashes)
    with pytest.raises(wb.PromptError, match="all held out"):
        Corpus.of(hooked, ["one"]).split(0.9)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"steps": 0}, "steps is 0: expected a whole number of 1"),
        ({"momentum": 1.0}, "momentum is 1.0: expected a number of 0..0.999"),
        ({"held_out": 0.95}, "held_out is 0.95"),
        ({"optimiser": "lbfgs"}, "expected sgd or adam"),
        ({"rate": 0}, "rate is 0"),
    ],
)
def test_bad_settings(settings: dict[str, object], said: str) -> None:
    with pytest.raises(wb.SettingError, match=said):
        TunedFit(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("engine", ["transformer_lens", "nnsight"])
def test_every_engine_fits_the_same_lens(engine: str) -> None:
    hf = hf_model("gpt2")
    plain = BRIEF(wb.load(hf, tokenizer()), TEXTS)
    other: Translator = BRIEF(wb.load(hf_model("gpt2"), tokenizer(), engine=engine), TEXTS)
    for name, tensor in plain.tensors.items():
        # float64; four steps of gradients of size ~1 through another order of sums
        torch.testing.assert_close(other.tensors[name], tensor, rtol=0, atol=1e-9)
