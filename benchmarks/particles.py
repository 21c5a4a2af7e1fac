"""Metrics of tokens as particles against their naive forms, and what they cost beside a forward.

Naive forms hold all pairs, or loop over tokens; both sides get the same unit vectors and mask. The forward is
one prompt of 512 random tokens through a GPT-2-small-shaped random model, 13 states; the whole of the
instrument is measured from the captures of such a prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
from sklearn.metrics import silhouette_score
from torch import Tensor

from benchmarks.clock import Side, interleave
from benchmarks.line import Line
from benchmarks.logit_lens import no_grad, random_gpt2
from probes import Particles
from probes.particles.clustering import agglomerative, hdbscan, kmeans, silhouette
from probes.particles.clusters import components, participation_ratio, vendi
from probes.particles.concentration import coinciding_pairs, nearest_neighbour_cosine
from probes.particles.dimension import two_nn
from probes.particles.dimensions import cosine_share, energy_share
from probes.particles.energy import interaction_energy, mean_field_force
from probes.particles.histograms import cosine_histogram
from probes.particles.order import mean_cosine, order_parameter
from probes.particles.path import step_size, straightness, turn_cosine
from probes.particles.preprocessing import prepare
from probes.particles.rank import composite_residual, relative_residual
from probes.particles.spins import magnetisation, spin_energy
from workbench.models.tokens import EncodedPrompt
from workbench.prompts import Prompt

__all__ = ["run"]

TOKENS, WIDTH, STATES, CLUSTERS = 512, 768, 13, 8
Metric = Callable[[Tensor, Tensor], Tensor]
CLOSED: tuple[Metric, ...] = (
    order_parameter,
    mean_cosine,
    participation_ratio,
    composite_residual,
    relative_residual,
    energy_share,
    cosine_share,
    magnetisation,
    spin_energy,
)
PATHS: tuple[Metric, ...] = (step_size, straightness, turn_cosine)
PAIRS: Mapping[str, Metric] = {
    "nearest neighbour": nearest_neighbour_cosine,
    "coinciding pairs": coinciding_pairs,
    "components": components,
    "interaction energy": partial(interaction_energy, beta=1.0),
    "mean-field force": partial(mean_field_force, beta=1.0),
    "cosine histogram": cosine_histogram,
}
DEAR: Mapping[str, Metric] = {"Vendi": vendi, "TwoNN": two_nn}
HARD: Mapping[str, Metric] = {
    "KMeans": partial(kmeans, k=CLUSTERS),
    "agglomerative": agglomerative,
    "HDBSCAN": hdbscan,
}


def run(device: torch.device, rounds: int) -> Iterator[Line]:
    """Measure and compare; every pair of sides is checked to give the same numbers first."""
    yield from against_naive(device, rounds)
    yield from silhouettes(device, rounds)
    yield from beside_a_forward(device, rounds)
    yield whole_instrument(device, rounds)


def vectors(sets: int, tokens: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Unit vectors with a common part, and a mask of all of them."""
    random = torch.Generator().manual_seed(0)
    x = torch.randn(sets, tokens, WIDTH, generator=random) + torch.randn(WIDTH, generator=random)
    u = torch.nn.functional.normalize(x, dim=-1).to(device)
    return u, torch.ones(sets, tokens, dtype=torch.bool, device=device)


def against_naive(device: torch.device, rounds: int) -> Iterator[Line]:
    """From all pairs of every set at once, as published definitions read."""
    u, mask = vectors(STATES, TOKENS, device)
    long, long_mask = vectors(1, 8 * TOKENS, device)
    yield compared(
        f"mean cosine, T = {TOKENS}, d = {WIDTH}, over all pairs",
        mean_cosine,
        all_pairs,
        u,
        mask,
        rounds,
        1 / 4,
    )
    yield compared(
        f"participation ratio, T = {8 * TOKENS}, over all pairs",
        participation_ratio,
        from_pairs,
        long,
        long_mask,
        rounds,
        None,
    )


def compared(
    what: str,
    ours: Metric,
    theirs: Metric,
    u: Tensor,
    mask: Tensor,
    rounds: int,
    goal: float | None,
) -> Line:
    """One metric over its naive form."""
    torch.testing.assert_close(ours(u, mask), theirs(u, mask), rtol=1e-4, atol=1e-5)
    sides: dict[str, Side] = {"ours": partial(ours, u, mask), "theirs": partial(theirs, u, mask)}
    times = interleave(sides, rounds)
    detail = f"{times.median('ours') * 1e3:.1f} ms against {times.median('theirs') * 1e3:.1f} ms"
    return Line(what, times.ratio("ours", "theirs"), goal, detail)


def all_pairs(u: Tensor, mask: Tensor) -> Tensor:
    """The mean of the cosine matrix beside its diagonal."""
    cosines = u @ u.mT
    off = mask[..., None] & mask[..., None, :] & ~torch.eye(u.shape[-2], device=u.device).bool()
    return torch.where(off, cosines, 0.0).sum((-2, -1)) / off.sum((-2, -1))


def from_pairs(u: Tensor, mask: Tensor) -> Tensor:
    """n^2 over the sum of squared cosines."""
    both = mask[..., None] & mask[..., None, :]
    squares = torch.where(both, u @ u.mT, 0.0).square().sum((-2, -1))
    return mask.sum(-1) ** 2 / squares


def silhouettes(device: torch.device, rounds: int) -> Iterator[Line]:
    """One set of 2048 tokens in 8 clusters, over the definition's loop and over scikit-learn."""
    tokens = 4 * TOKENS
    u, mask = vectors(1, tokens, device)
    labels = torch.arange(tokens, device=device) % CLUSTERS
    what = f"silhouette, T = {tokens}, {CLUSTERS} clusters"

    def ours(u: Tensor, mask: Tensor) -> Tensor:
        return silhouette(u, labels[None], mask)

    def looped(u: Tensor, mask: Tensor) -> Tensor:
        return looped_silhouette(u[0], labels)[None]

    def scikit(u: Tensor, mask: Tensor) -> Tensor:
        score = silhouette_score(u[0].cpu().numpy(), labels.cpu().numpy(), metric="cosine")
        return u.new_tensor([float(score)])

    yield compared(f"{what}, over a loop", ours, looped, u, mask, rounds, 1 / 100)
    yield compared(f"{what}, over scikit-learn", ours, scikit, u, mask, rounds, None)


def looped_silhouette(u: Tensor, labels: Tensor) -> Tensor:
    """By the definition, from the matrix of distances, a token at a time."""
    distance = 1 - u @ u.T
    members = [labels == cluster for cluster in range(CLUSTERS)]
    scores = []
    for token, own in enumerate(labels.tolist()):
        means = [distance[token][member].mean() for member in members]
        size = members[own].sum()
        within = means[own] * size / (size - 1)
        between = torch.stack(means[:own] + means[own + 1 :]).min()
        scores.append((between - within) / torch.maximum(within, between))
    return torch.stack(scores).mean()


def beside_a_forward(device: torch.device, rounds: int) -> Iterator[Line]:
    """Shares of one forward with its logits; expensive ones apart."""
    torch.manual_seed(0)
    hf = random_gpt2(device).hf
    ids = torch.randint(0, hf.config.vocab_size, (1, TOKENS), device=device)
    states = torch.stack(no_grad(hf, ids, output_hidden_states=True).hidden_states, dim=1)
    mask = torch.ones(1, STATES, TOKENS, dtype=torch.bool, device=device)
    mean = states.mean((0, 2))  # its cost is that of a corpus mean
    found = prepare(states, mask, mean)

    def view(mean: Tensor | None) -> list[Tensor]:
        particles = prepare(states, mask, mean)
        return [metric(particles.u, particles.mask) for metric in CLOSED]

    def all_views() -> None:
        for one in (None, mean):
            view(one)
        for path in PATHS:
            path(states, mask[:, 0])

    sides: dict[str, Side] = {
        "forward": partial(no_grad, hf, ids),
        "no logits": partial(no_grad, hf.transformer, ids),
        "set": partial(view, mean),
        "views": all_views,
    }
    sides |= {name: partial(metric, found.u, found.mask) for name, metric in (PAIRS | DEAR).items()}
    times = interleave(sides, rounds)
    whole = f"the forward of {TOKENS} tokens"
    bare = times.ratio("set", "no logits")
    yield Line(
        f"closed-form set with preparing, 13 states, one view, over {whole}",
        times.ratio("set", "forward"),
        0.1,
        f"{times.median('set') * 1e3:.0f} ms; {bare:.3f} of the forward without logits",
    )
    yield Line(
        f"the same raw and centred, and paths, over {whole}",
        times.ratio("views", "forward"),
        None,
        f"{times.median('views') * 1e3:.0f} ms",
    )
    for name in PAIRS | DEAR:
        detail = f"{times.median(name) * 1e3:.0f} ms, apart from the set"
        yield Line(f"{name}, 13 states, over {whole}", times.ratio(name, "forward"), None, detail)
    yield from hard(found.u[0, -1], found.mask[0, -1], rounds)


def whole_instrument(device: torch.device, rounds: int) -> Line:
    """`Particles` raw and centred, all but eigenvalues and TwoNN; the corpus mean is taken before."""
    torch.manual_seed(0)
    model = random_gpt2(device)
    ids = torch.randint(0, model.vocab_size, (TOKENS,)).tolist()
    prompt = EncodedPrompt(Prompt("random tokens"), tuple(ids), (), None, None)
    batch = model.batch([prompt])
    instrument = Particles(views=["raw", "centred"], expensive=False).settled(
        model, [prompt.prompt]
    )
    captures = model.capture(batch, "resid_post")
    row = torch.tensor([ids], device=device)
    sides: dict[str, Side] = {
        "ours": torch.inference_mode()(partial(instrument.measure_beside, captures, model)),
        "forward": partial(no_grad, model.hf, row),
    }
    times = interleave(sides, rounds)
    detail = f"{times.median('ours') * 1e3:.0f} ms against {times.median('forward') * 1e3:.0f} ms"
    what = f"the whole of Particles, raw and centred, over the forward of {TOKENS} tokens"
    return Line(what, times.ratio("ours", "forward"), 0.1, detail)


def hard(u: Tensor, mask: Tensor, rounds: int) -> Iterator[Line]:
    """scikit-learn's clusters of the last state's tokens."""
    times = interleave({name: partial(method, u, mask) for name, method in HARD.items()}, rounds)
    for name in HARD:
        yield Line(f"{name} of one state of {TOKENS} tokens", times.median(name), None, "", "s")
