"""Edge attribution and circuits: sums, identities, finite differences of exact edge patching."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

import workbench as wb
from probes.causal.cells import Put
from probes.causal.contrast import Contrast
from probes.causal.effects import Direction, effects
from probes.causal.metrics import Metric
from probes.circuits.edges import edge_scores
from probes.circuits.nodes import Nodes
from probes.circuits.pair import Pair
from probes.circuits.patching import attributed
from probes.circuits.run import circuits
from tests.tiny import model
from workbench.models.sites import Site

WHO = "edge_attribution"
PAIR = wb.Prompt("abcdefg", target="h", foil="x", corrupted="abXdeYg")
NOISY = wb.Prompt("abcdefg", target="h", foil="x", subject="cd")
PLAIN = ["gpt2", "gpt_neox", "llama", "falcon_new", "opt", "bloom", "granite"]
FLOAT32_NORM = ("llama", "granite")  # RMSNorm computes in float32 whatever the dtype


def pair(
    family: str = "gpt2", prompt: wb.Prompt = PAIR, metric: Metric = "logit_difference"
) -> Pair:
    hooked = model(family)
    encoded = [hooked.encode(prompt, long_targets=True)]
    if prompt.corrupted is not None:
        contrast = Contrast.by_text(hooked, encoded, WHO)
    else:
        contrast = Contrast.by_noise(hooked, encoded, std=0.3, samples=2, seed=0)
    return Pair.of(hooked, contrast, metric)


def kept(nodes: Nodes, edges: Sequence[tuple[int, int]], *, but: bool = False) -> torch.Tensor:
    """One circuit of these edges, or of all others."""
    found = torch.zeros(len(nodes.senders), len(nodes.receivers), dtype=torch.bool)
    for sender, receiver in edges:
        found[sender, receiver] = True
    return (~found if but else found)[None]


@pytest.mark.parametrize("prompt", [PAIR, NOISY], ids=["pair", "noise"])
@pytest.mark.parametrize("family", PLAIN)
def test_all_edges_are_the_clean_run_and_none_the_corrupted(family: str, prompt: wb.Prompt) -> None:
    it = pair(family, prompt)
    nodes = Nodes.of(it.model, WHO)
    found = circuits(it, nodes, torch.cat([kept(nodes, []), kept(nodes, [], but=True)]))
    ends = [
        it.read(side[0], ["resid_post"])[1] for side in (it.contrast.corrupted, it.contrast.clean)
    ]
    # float64 but for norms: a few roundings a block
    atol = 1e-5 if family in FLOAT32_NORM else 1e-12
    torch.testing.assert_close(found[0], ends[0], atol=atol, rtol=0)
    torch.testing.assert_close(found[1], ends[1].expand(it.samples), atol=atol, rtol=0)
    assert float((found[1] - found[0]).abs().min()) > 1e-3


@pytest.mark.parametrize("direction", ["noising", "denoising"])
@pytest.mark.parametrize("family", PLAIN)
def test_edges_into_a_receiver_sum_to_it(family: str, direction: Direction) -> None:
    """Into the logits: what the last state does; out of the embedding: what resid_post does there."""
    it = pair(family)
    nodes = Nodes.of(it.model, WHO)
    scores = edge_scores(it, nodes, direction, 0)
    states = attributed(it, direction, ("resid_post",), 0).effects["resid_post"].sum(-1)
    atol = 1e-5 if family in FLOAT32_NORM else 1e-11
    torch.testing.assert_close(scores[:, :, -1].sum(1), states[-1], atol=atol, rtol=0)
    # What leaves the embedding, by any edge, is what resid_post at layer 0 does.
    torch.testing.assert_close(scores[:, 0].sum(1), states[0], atol=atol, rtol=0)


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox"])
@pytest.mark.parametrize("metric", ["logprob", "logit_difference"])
def test_scores_are_slopes_of_exact_edge_patching(family: str, metric: Metric) -> None:
    """With a corrupted run a little way off, leaving one edge out changes the score by its effect."""
    it = pair(family, metric=metric)
    nodes = Nodes.of(it.model, WHO)
    step = 1e-4
    near = it.contrast.clean + step * (it.contrast.corrupted - it.contrast.clean)
    close = Pair(
        it.model, type(it.contrast)(**{**vars(it.contrast), "corrupted": near}), metric, it.logits
    )
    scores = edge_scores(close, nodes, "noising", 0)[0]
    edges = [tuple(edge) for edge in nodes.edges.nonzero()[::9].tolist()]
    left_out = torch.cat([kept(nodes, [edge], but=True) for edge in edges])
    whole = circuits(close, nodes, kept(nodes, [], but=True))
    found = (circuits(close, nodes, left_out) - whole)[:, 0]
    expected = torch.stack([scores[edge] for edge in edges])
    size = float(scores.abs().max())
    # the second order of a step of 1e-4: far below the size of a slope times it
    torch.testing.assert_close(found, expected, atol=3e-3 * size, rtol=1e-2)


def test_the_mean_gradient_of_edges_is_complete() -> None:
    """What leaves the embedding adds up to the whole effect, by the integral along it."""
    it = pair()
    nodes = Nodes.of(it.model, WHO)
    scores = edge_scores(it, nodes, "noising", 24)
    corrupted, clean = (
        it.read(side[0], ["resid_post"])[1] for side in (it.contrast.corrupted, it.contrast.clean)
    )
    torch.testing.assert_close(scores[:, 0].sum(1), corrupted - clean, atol=1e-8, rtol=0)


def test_samples_and_circuits_in_one_run_are_as_alone() -> None:
    it = pair(prompt=NOISY)
    nodes = Nodes.of(it.model, WHO)
    torch.manual_seed(1)
    some = torch.rand(3, *nodes.edges.shape) < 0.5
    together = circuits(it, nodes, some)
    alone = torch.cat([circuits(it, nodes, one[None]) for one in some])
    torch.testing.assert_close(together, alone, atol=1e-13, rtol=0)


@pytest.mark.parametrize("family", ["gemma2", "olmo2", "mixtral", "bert", "t5"])
def test_models_whose_parts_do_not_come_apart_are_refused(family: str) -> None:
    with pytest.raises(wb.UnsupportedError, match="edge_attribution"):
        Nodes.of(model(family), WHO)


@pytest.mark.parametrize("prompt", [PAIR, NOISY], ids=["pair", "noise"])
@pytest.mark.parametrize("family", PLAIN)
def test_without_the_edges_out_of_a_node_it_is_patched(family: str, prompt: wb.Prompt) -> None:
    """The circuit's run against the engine's: corrupted values of one head, or MLP, in the clean run."""
    it = pair(family, prompt)
    nodes = Nodes.of(it.model, WHO)
    columns = tuple(range(it.width))
    cells = [(Put(Site("z", 2), columns, heads=(1,)),), (Put(Site("mlp_out", 1), columns),)]
    names = [str(node) for node in nodes.senders]
    without = [
        kept(nodes, [(names.index(name), r) for r in range(len(nodes.receivers))], but=True)
        for name in ("head 2.1", "mlp 1")
    ]
    expected = effects(
        it.model, it.contrast, cells, metric=it.metric, direction="noising", algorithm="naive"
    )
    found = circuits(it, nodes, torch.cat(without))
    atol = 1e-5 if family in FLOAT32_NORM else 1e-12
    torch.testing.assert_close(found, expected.patched[:, 0], atol=atol, rtol=0)
    assert float((expected.patched[:, 0] - expected.clean).abs().min()) > 1e-4
