"""Path patching against plain nested hooks, against transformer-lens, and against its closed form."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import Tensor

import workbench as wb
from probes import Patch, PathPatch
from tests.models.bridges import bridge
from tests.probes import plain
from tests.probes.test_patching import (
    FAMILIES,
    INSIDE,
    OTHER,
    PROMPT,
    STORED,
    TEXT,
    TOLERANCE,
    difference,
    ids,
)
from tests.tiny import LAYERS, hf_model, model

LAYERED = range(1, LAYERS + 1)


class Plain:
    """Wang et al.'s algorithm step by step on one text: a run for what is sent, a run for what is read."""

    def __init__(self, hf: Any, base: Tensor, source: Tensor, frozen: bool) -> None:
        self.hf, self.ids, self.frozen = hf, base, frozen
        places = [(name, layer) for name in ("z", "attn_out", "mlp_out") for layer in LAYERED]
        self.base = plain.values(hf, base, places)
        self.source = plain.values(hf, source, places)
        self.every = list(range(len(base)))

    def sent(self, name: str, layer: int, head: int | None) -> dict[plain.Place, plain.Change]:
        """The sender from the source, what is frozen from the base."""
        changes = {(name, layer): plain.putting(self.source[name, layer], self.every, head)}
        for later in LAYERED:
            if later > layer:
                changes["attn_out", later] = self.kept("attn_out", later)
            if self.frozen and (later > layer or (later == layer and name == "z")):
                changes["mlp_out", later] = self.kept("mlp_out", later)
        return changes

    def kept(self, name: str, layer: int) -> plain.Change:
        return plain.putting(self.base[name, layer], self.every, None)

    def to_logits(self, name: str, layer: int, head: int | None) -> float:
        return difference(plain.run(self.hf, self.ids, self.sent(name, layer, head)))

    def through(
        self, name: str, layer: int, head: int | None, receivers: list[tuple[str, int, int | None]]
    ) -> float:
        noted: dict[plain.Place, Tensor] = {}
        changes = self.sent(name, layer, head)
        for kind, at, _ in receivers:
            if (kind, at) == (name, layer):
                continue  # the sender itself
            after = changes.get((kind, at))

            def note(value: Tensor, place: Any = (kind, at), after: Any = after) -> Tensor | None:
                noted[place] = value.clone()
                return None if after is None else after(value)

            changes[kind, at] = note
        plain.run(self.hf, self.ids, changes)
        put: dict[plain.Place, plain.Change] = {}
        for kind, at, own in receivers:
            if (kind, at) in noted:
                put[kind, at] = plain.putting(noted[kind, at], self.every, own)
        return difference(plain.run(self.hf, self.ids, put))


def senders() -> list[tuple[str, int, int | None]]:
    heads = [("z", layer, head) for layer in LAYERED for head in (0, 1)]
    return [*heads, *(("mlp_out", layer, None) for layer in LAYERED)]


def found(data: Any, name: str, layer: int, head: int | None) -> float:
    one = data.isel(place=0).sel(layer=layer)
    if head is None:
        return float(one.score.sel(site=name))
    return float(one.head_score.sel(head_site=name, head=head))


@pytest.mark.parametrize("mlps", ["recomputed", "frozen"])
@pytest.mark.parametrize("family", FAMILIES)
def test_paths_are_those_of_the_algorithm_step_by_step(family: str, mlps: Any) -> None:
    hf, base, source = hf_model(family), ids(family, TEXT), ids(family, OTHER)
    slow = Plain(hf, base, source, mlps == "frozen")
    direct = PathPatch(mlps=mlps)(model(family), PROMPT).data
    for sender in senders():
        assert_allclose(found(direct, *sender), slow.to_logits(*sender), **TOLERANCE)
    cases: list[tuple[list[str], list[tuple[str, int, int | None]]]] = [
        (["q2.1"], [("q", 2, 1)]),
        (["k3.0", "v2.0"], [("k", 3, 0), ("v", 2, 0)]),
        (["mlp2", "mlp3", "q3.0"], [("mlp_out", 2, None), ("mlp_out", 3, None), ("q", 3, 0)]),
        (["mlp2"], [("mlp_out", 2, None)]),
    ]
    for written, receivers in cases:
        data = PathPatch(receivers=written, mlps=mlps)(model(family), PROMPT).data
        for sender in senders():
            expected = slow.through(*sender, receivers)
            assert_allclose(found(data, *sender), expected, **INSIDE, err_msg=f"{written} {sender}")


def test_denoising_puts_the_clean_value_into_the_corrupted_run() -> None:
    slow = Plain(hf_model("gpt2"), ids("gpt2", OTHER), ids("gpt2", TEXT), False)
    for receivers, plainly in (("logits", None), ("v3.1", [("v", 3, 1)])):
        data = PathPatch(receivers=receivers, direction="denoising")(model("gpt2"), PROMPT).data
        for sender in senders():
            expected = slow.through(*sender, plainly) if plainly else slow.to_logits(*sender)
            assert_allclose(found(data, *sender), expected, **TOLERANCE)


@torch.no_grad()
def test_the_direct_path_of_a_head_is_its_change_through_its_output_map() -> None:
    """With all else frozen: logits of base's last state plus (z_source - z_base) W_O, normed anew."""
    hooked, hf = model("gpt2"), hf_model("gpt2")
    data = PathPatch("z", mlps="frozen")(hooked, PROMPT).data
    base, source = (hooked.capture(text, ["z", "resid_post"], "last") for text in (TEXT, OTHER))
    for layer in LAYERED:
        weight = hf.transformer.h[layer - 1].attn.c_proj.weight.unflatten(0, (2, -1))
        for head in (0, 1):
            change = (source["z", layer] - base["z", layer])[:, head] @ weight[head]
            logits = hooked.readout(base["resid_post", LAYERS] + change)
            assert_allclose(found(data, "z", layer, head), difference(logits), **TOLERANCE)
    # A last block's MLP is read by the logits alone: its path is all of its effect.
    every = Patch("mlp_out", scope="together", direction="noising")(hooked, PROMPT).data
    last = {"layer": LAYERS, "site": "mlp_out"}
    own = PathPatch("mlp_out")(hooked, PROMPT).data.effect.sel(last).squeeze()
    assert_allclose(own, every.effect.sel(last).squeeze(), **TOLERANCE)
    assert abs(float(own)) > 1e-3


@torch.no_grad()
def test_transformer_lens_direct_paths_agree() -> None:
    """Its `get_act_patch_direct_path`: one head's write into each later head's q, k or v alone."""
    from transformer_lens.patching import get_act_patch_direct_path

    lens = bridge("gpt2").bridge
    clean, corrupted = ids("gpt2", TEXT)[None], ids("gpt2", OTHER)[None]
    caches = [lens.run_with_cache(text)[1] for text in (clean, corrupted)]

    def metric(logits: Tensor) -> Tensor:
        return torch.tensor(difference(logits[0]), dtype=torch.float64)

    for component in "qkv":
        expected = get_act_patch_direct_path(
            lens, corrupted, *caches, metric, 0, 1, component, verbose=False
        )
        for layer in range(2, LAYERS + 1):
            for head in (0, 1):
                settings = {"mlps": "frozen", "direction": "denoising", "layers": 1}
                path = PathPatch("z", receivers=f"{component}{layer}.{head}", **settings)
                score = found(path(model("gpt2"), PROMPT).data, "z", 1, 1)
                assert_allclose(score, expected[layer - 1, head], **STORED)


def test_layers_that_no_path_leads_to_have_no_effect_at_all() -> None:
    data = PathPatch(receivers="q2.0,mlp2")(model("gpt2"), PROMPT).data
    later = data.sel(layer=slice(3, None))
    assert not later.effect.any()
    assert not later.head_effect.any()
    assert data.head_effect.sel(layer=2).all()  # the same block's MLP reads its heads
    assert not data.effect.sel(layer=2).any()
    elsewhere = PathPatch(positions=[0, 1])(model("gpt2"), PROMPT).data
    assert not elsewhere.head_effect.any()  # frozen attention moves nothing to the last token


def test_batches_targets_of_several_tokens_and_chosen_positions() -> None:
    prompts = [
        wb.Prompt("ab cde", id="a", target="xy", corrupted="ab xyz"),
        wb.Prompt("f gh", id="b", target="x", corrupted="f xy"),
        wb.Prompt("ab cdf", id="c", target="xz", corrupted="ah xyz"),
    ]
    for receivers in ("logits", "v2.0,mlp3"):
        kind = PathPatch(receivers=receivers, positions=[-1, -2], receiver_positions="last")
        whole = kind(model("gpt2"), prompts).data
        for prompt in prompts:
            alone, part = (
                kind(model("gpt2"), prompt).data,
                whole.sel(place=whole.prompt == prompt.id),
            )
            for name in set(alone.data_vars) - {"vocabulary", "block_tokens"}:
                assert_allclose(part[name], alone[name], **TOLERANCE)
        assert np.isfinite(whole.head_effect).all()
        assert whole.head_effect.any()


@pytest.mark.parametrize("engine", ["transformer_lens", "nnsight"])
def test_engines_agree(engine: str) -> None:
    from tests.tiny import tokenizer

    other = wb.load(hf_model("gpt2"), tokenizer(), engine=engine)
    for receivers in ("logits", "mlp2,mlp3") if engine == "nnsight" else ("logits", "v2.1,mlp3"):
        for mlps in ("frozen", "recomputed"):
            kind = PathPatch(receivers=receivers, mlps=mlps)  # type: ignore[arg-type]
            own, theirs = kind(model("gpt2"), PROMPT).data, kind(other, PROMPT).data
            for name in ("score", "head_score"):
                assert_allclose(theirs[name], own[name], **TOLERANCE)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"receivers": "q2"}, "receiver 'q2': expected logits alone, or some of q5.3"),
        ({"receivers": "logits,q2.1"}, "receiver 'logits'"),
        ({"receivers": "q2.1,q2.1"}, "expected each once"),
        ({"receivers": "q9.1"}, "receiver at layer 9: expected 1..3"),
        ({"receivers": "q2.2"}, "receiver q2.2: expected heads 0..1"),
        ({"receivers": "k2.1"}, "receiver k2.1: expected heads 0..0"),
        ({"mlps": "some"}, "mlps is 'some'"),
        ({"layers": 0}, "layer 0, the embedding"),
        ({"receivers": "q2.1", "receiver_positions": []}, "are none of the"),
        ({"sites": "resid_post"}, "expected some of mlp_out, z"),
    ],
)
def test_what_is_no_path_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(wb.SettingError, match=message):
        PathPatch(**settings)(model("llama"), PROMPT)
