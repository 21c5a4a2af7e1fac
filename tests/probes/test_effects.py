"""Effects of cells: three algorithms, the reference's way, the identities, and the work that is done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import pytest
import torch
from torch import Tensor

import workbench as wb
from probes.causal.cells import Cell, Put, cell_of, effective
from probes.causal.contrast import Contrast
from probes.causal.corruption import noise
from probes.causal.effects import Effects, effects, planned
from probes.tracing.grid import cells_of, grid, window_of
from tests.probes.reference import PATHS, frozen, module_of, outputs, restored, run
from tests.tiny import FAMILIES, hf_model, model
from workbench.models.sites import Site

EXACT = {"atol": 1e-12, "rtol": 0}  # float64: some 1e3 roundings of 1e-16 in scores of a few units
FLOAT32_INSIDE = ("gpt_neo", "gptj")  # their softmax is in float32 whatever the dtype
SAMPLES, STD = 3, 0.5
TEXTS = ("abcdefgh", "hgfedcba")


def prompts(hooked: wb.Engine) -> list[wb.EncodedPrompt]:
    asked = [("cde", "x", "y"), ("gfe", "y", "x")]
    return [
        hooked.encode(wb.Prompt(text, subject=subject, target=target, foil=foil))
        for text, (subject, target, foil) in zip(TEXTS, asked, strict=True)
    ]


def noised(hooked: wb.Engine) -> Contrast:
    return Contrast.by_noise(hooked, prompts(hooked), std=STD, samples=SAMPLES, seed=0)


def every_kind(width: int, n_layers: int, inside: str = "mlp_act") -> list[Cell]:
    """Cells of every kind: states, windows, severed traces, heads, spans, the embedding, none."""
    layers, columns = range(1, n_layers + 1), range(width)
    sites = ("resid_post", "mlp_out", "attn_out", "severed_mlp", "severed_attn")
    heads = [(Put(Site("z", 2), (column,), heads=(1,)),) for column in columns]
    span = cell_of([Put(Site("mlp_out", 2), (3, 5)), Put(Site("resid_post", 1), (4,))])
    neurons = [
        cell_of([Put(Site(name, layer), columns) for layer in layers for name in ("z", inside)])
        for columns in ((width - 1,), (2, width - 1))
    ]
    whole = (Put(Site("resid_post", 0), tuple(columns)),)
    return [*grid(sites, layers, columns, 3, n_layers), *heads, *neurons, span, whole, ()]


def tolerance(family: str) -> dict[str, float]:
    return {"atol": 2e-5, "rtol": 0} if family in FLOAT32_INSIDE else EXACT


@pytest.mark.parametrize(
    ("family", "direction"),
    [*((family, "denoising") for family in FAMILIES), ("gpt2", "noising"), ("qwen3", "noising")],
)
def test_three_algorithms_give_the_same_scores(family: str, direction: str) -> None:
    hooked = model(family)
    contrast = noised(hooked)
    experts = family in ("mixtral", "olmoe", "qwen3_moe", "gpt_oss")  # have no mlp_act
    cells = every_kind(contrast.width, hooked.n_layers, "mlp_out" if experts else "mlp_act")
    found = {
        algorithm: effects(
            hooked,
            contrast,
            cells,
            metric="logit_difference",
            direction=direction,
            algorithm=algorithm,
        )
        for algorithm in ("wave", "restart", "naive")
    }
    for other in ("restart", "naive"):
        for part in ("clean", "corrupted", "patched"):
            torch.testing.assert_close(
                getattr(found["wave"], part), getattr(found[other], part), **tolerance(family)
            )
    assert found["wave"].block_tokens < found["restart"].block_tokens
    assert found["restart"].block_tokens < found["naive"].block_tokens


@pytest.mark.parametrize("engine", ["transformer_lens", "nnsight"])
def test_every_engine_gives_the_same_scores(engine: str) -> None:
    plain = model("gpt2")
    other = wb.load(hf_model("gpt2"), plain.tokenizer, engine=engine)
    contrast = noised(plain)
    cells = every_kind(contrast.width, plain.n_layers)[::7]
    expected = effects(plain, contrast, cells, metric="logprob")
    found = effects(other, noised(other), cells, metric="logprob")
    torch.testing.assert_close(found.patched, expected.patched, atol=1e-5, rtol=0)
    assert found.algorithm == {"transformer_lens": "wave", "nnsight": "restart"}[engine]


# --- the reference's way --------------------------------------------------------------------


@pytest.mark.parametrize("family", PATHS)
def test_states_and_windows_are_those_of_whole_runs_with_plain_hooks(family: str) -> None:
    hooked, hf = model(family), hf_model(family)
    prompt = prompts(hooked)[0]
    contrast = Contrast.by_noise(hooked, [prompt], std=STD, samples=SAMPLES, seed=0)
    ids, n_layers = contrast.batch.ids[0], hooked.n_layers
    d_embed = hooked.embedding.shape[1]
    shift = noise(prompt, len(ids), SAMPLES, STD, d_embed, 0)
    for site in ("resid_post", "mlp_out", "attn_out"):
        cells = grid([site], range(1, n_layers + 1), range(len(ids)), 3, n_layers)
        found = effects(hooked, contrast, cells, metric="probability").patched[:, 0]
        for layer in range(1, n_layers + 1):
            blocks = [layer] if site == "resid_post" else window_of(layer, 3, n_layers)
            for token in range(len(ids)):
                changes = {module_of(hf, family, site, k): [restored(token)] for k in blocks}
                expected = run(hf, ids, shift, changes)[1:].softmax(-1)[:, prompt.target]
                own = found[(layer - 1) * len(ids) + token]
                torch.testing.assert_close(own, expected, **EXACT)


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox"])
@pytest.mark.parametrize("severed", ["mlp_out", "attn_out"])
def test_severed_traces_are_those_of_whole_runs_with_one_draw(family: str, severed: str) -> None:
    hooked, hf = model(family), hf_model(family)
    prompt = prompts(hooked)[0]
    contrast = Contrast.by_noise(hooked, [prompt], std=STD, samples=SAMPLES, seed=0)
    ids, n_layers = contrast.batch.ids[0], hooked.n_layers
    shift = noise(prompt, len(ids), SAMPLES, STD, hooked.embedding.shape[1], 0)
    corrupted = outputs(hf, family, severed, ids, shift)
    site = {"mlp_out": "severed_mlp", "attn_out": "severed_attn"}[severed]
    for layer in range(1, n_layers + 1):
        for token in range(2, len(ids)):
            cell = cells_of(site, layer, token, 1, n_layers)
            found = effects(hooked, contrast, [cell], metric="probability").patched[0, 0]
            changes = {module_of(hf, family, "resid_post", layer): [restored(token)]}
            for later in range(layer + 1, n_layers + 1):
                own = frozen(token, corrupted[later - 1][:, token])
                changes[module_of(hf, family, severed, later)] = [own]
            expected = run(hf, ids, shift, changes)[1:].softmax(-1)[:, prompt.target]
            torch.testing.assert_close(found, expected, **EXACT)


# --- identities ------------------------------------------------------------------------------


@cache
def states_grid() -> tuple[Contrast, Effects, Tensor]:
    """A grid of states on GPT-2: [layer, column, prompt, sample]."""
    hooked = model("gpt2")
    contrast = noised(hooked)
    cells = grid(["resid_post"], range(1, 4), range(contrast.width), 3, 3)
    found = effects(hooked, contrast, cells, metric="logprob")
    return contrast, found, found.patched.view(3, contrast.width, 2, SAMPLES)


def test_nothing_put_in_is_the_corrupted_run() -> None:
    hooked, contrast = model("gpt2"), states_grid()[0]
    found = effects(hooked, contrast, [()], metric="logprob")
    assert torch.equal(found.patched[0], found.corrupted)


@pytest.mark.parametrize("layer", range(4))
def test_all_tokens_from_the_first_corrupted_one_at_a_layer_are_the_clean_run(layer: int) -> None:
    hooked, contrast = model("gpt2"), states_grid()[0]
    cell = (Put(Site("resid_post", layer), tuple(range(contrast.same, contrast.width))),)
    found = effects(hooked, contrast, [cell], metric="logprob")
    expected = found.clean[:, None].expand_as(found.corrupted)
    torch.testing.assert_close(found.patched[0], expected, **EXACT)


def test_the_last_token_after_the_last_block_is_the_clean_run() -> None:
    _, found, patched = states_grid()
    expected = found.clean[:, None].expand_as(found.corrupted)
    torch.testing.assert_close(patched[-1, -1], expected, **EXACT)


@pytest.mark.parametrize("algorithm", ["wave", "naive"])
def test_the_ends_are_scored_as_the_cells_are_in_half_precision(algorithm: str) -> None:
    """Logits in bfloat16 have steps of hundredths: both ends in them, or neither."""
    hooked = model("gpt2", torch.bfloat16)
    cells = [(Put(Site("resid_post", layer), (7,)),) for layer in (3, 2)]
    found = effects(hooked, noised(hooked), cells, metric="logit_difference", algorithm=algorithm)
    whole, _ = found.patched
    assert torch.equal(whole, found.clean[:, None].expand_as(whole))
    back = effects(
        hooked,
        noised(hooked),
        cells[:1],
        metric="logit_difference",
        direction="noising",
        algorithm=algorithm,
    )
    assert torch.equal(back.patched[0], back.corrupted)


def test_cells_that_cannot_act_are_the_corrupted_run_exactly() -> None:
    contrast, found, patched = states_grid()
    before = patched[:, : contrast.same].flatten(0, 1)
    assert torch.equal(before, found.corrupted.expand_as(before))
    last = patched[-1, :-1]
    assert torch.equal(last, found.corrupted.expand_as(last))


def test_the_subject_alone_at_all_layers_is_not_the_clean_run() -> None:
    """Later tokens have read what was corrupted before it was restored."""
    hooked, contrast = model("gpt2"), states_grid()[0]
    cell = cell_of([Put(Site("resid_post", layer), (2, 3, 4)) for layer in (1, 2, 3)])
    found = effects(hooked, contrast, [cell], metric="logprob")
    assert ((found.patched[0] - found.clean[:, None]).abs() > 1e-3).all()


def test_windows_that_hold_every_block_are_one_cell() -> None:
    assert {window_of(layer, 10, 5) for layer in range(1, 6)} == {range(1, 6)}
    cells = [cells_of("mlp_out", layer, 2, 10, 5) for layer in range(1, 6)]
    assert len(set(cells)) == 1


def test_the_window_has_the_ends_of_the_references_code() -> None:
    """There, for blocks from 0: range(max(0, l - 10 // 2), min(48, l - (-10 // 2)))."""
    for block in range(48):
        reference = range(max(0, block - 10 // 2), min(48, block - (-10 // 2)))
        assert [k - 1 for k in window_of(block + 1, 10, 48)] == list(reference)


def test_what_cannot_act_is_left_out_of_a_cell() -> None:
    sizes = {"n_layers": 3, "width": 8, "tail": 1, "same": {"source": 2}}
    state = Put(Site("resid_post", 1), (1, 2, 3))
    base = Put(Site("mlp_out", 2), (2,), "base")
    assert effective((state, base), **sizes) == (Put(Site("resid_post", 1), (2, 3)), base)
    assert effective((base, Put(Site("resid_post", 3), (6,))), **sizes) == ()
    assert effective((Put(Site("resid_post", 2), (1,)), base), **sizes) == ()


# --- metrics, and what is given ----------------------------------------------------------------


def test_a_target_of_several_tokens_is_scored_as_it_is_given() -> None:
    """The restored run's log-probability of each token after those before it, summed."""
    hooked, hf = model("gpt2"), hf_model("gpt2")
    prompt = hooked.encode(wb.Prompt("abcdefgh", subject="cde", target="xyz"), long_targets=True)
    contrast = Contrast.by_noise(hooked, [prompt], std=STD, samples=1, seed=0)
    cells = [(Put(Site("resid_post", 1), (token,)),) for token in range(8)]
    found = effects(hooked, contrast, cells, metric="logprob")
    ids = torch.tensor([*prompt.ids, *prompt.answer[:-1]])
    shift = noise(prompt, len(ids), 1, STD, 16, 0)
    whole = torch.cat([torch.zeros_like(shift), shift])
    block = module_of(hf, "gpt2", "resid_post", 1)
    for token in range(8):
        with (
            _hooked(hf.transformer.wte, lambda m, a, out: out + whole),
            _hooked(block, lambda m, a, out, token=token: _put(out, token)),
            torch.no_grad(),
        ):
            logprobs = hf(ids.expand(2, -1)).logits[1].log_softmax(-1)
        expected = sum(logprobs[7 + i, token_id] for i, token_id in enumerate(prompt.answer))
        torch.testing.assert_close(found.patched[token, 0, 0], expected, **EXACT)


def _put(out: Tensor | tuple[Tensor, ...], token: int) -> Tensor | tuple[Tensor, ...]:
    value = (out[0] if isinstance(out, tuple) else out).clone()
    value[1, token] = value[0, token]
    return (value, *out[1:]) if isinstance(out, tuple) else value


@contextmanager
def _hooked(module: torch.nn.Module, hook: object) -> Iterator[None]:
    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def test_kl_is_that_of_the_whole_distributions() -> None:
    hooked, contrast = model("gpt2"), states_grid()[0]
    cell = (Put(Site("resid_post", 1), (3,)),)
    found = effects(hooked, contrast, [(), cell], metric="kl")
    torch.testing.assert_close(found.clean, torch.zeros_like(found.clean), **EXACT)
    assert torch.equal(found.patched[0], found.corrupted)
    clean = _last_logprobs(hooked, contrast.clean)
    corrupted = _last_logprobs(hooked, contrast.corrupted)
    expected = (clean.exp() * (clean - corrupted)).sum(-1)
    torch.testing.assert_close(found.corrupted, expected, **EXACT)


def _last_logprobs(hooked: wb.Engine, states: Tensor) -> Tensor:
    """[prompts, samples, vocabulary]"""
    many = [text for text in TEXTS for _ in range(states.shape[1])]
    caught = hooked.tail(many, 0, states.flatten(0, 1), positions="last")
    return caught["logits", 3].log_softmax(-1).view(2, states.shape[1], -1)


def test_another_text_is_a_run_of_that_text() -> None:
    hooked = model("gpt2")
    prompt = hooked.encode(wb.Prompt("abcdefgh", target="x", corrupted="abXdefgh"))
    contrast = Contrast.by_text(hooked, [prompt], "toy")
    assert contrast.same == 2
    found = effects(hooked, contrast, [()], metric="probability")
    other = hooked.capture("abXdefgh", ("logits",), "last")["logits", 3].softmax(-1)
    torch.testing.assert_close(found.corrupted[0, 0], other[0, prompt.target], **EXACT)


# --- the work that is done ---------------------------------------------------------------------


@pytest.mark.parametrize("first", [0, 3])
def test_a_grid_of_states_costs_the_suffix_formula(first: int) -> None:
    """S (n (n + 1) / 2 - 1) x L (L - 1) / 2 + T L + S n L block-tokens, counted by hooks of our own."""
    hooked, width, samples = model("gpt2"), 12, 10
    prompt = hooked.encode(wb.Prompt("abcdefghijkl", subject=(first, first + 2), target="x"))
    contrast = Contrast.by_noise(hooked, [prompt], std=STD, samples=samples, seed=0)
    cells = grid(["resid_post"], range(1, 4), range(width), 1, 3)
    counted = 0

    def count(module: object, args: tuple[Tensor, ...]) -> None:
        nonlocal counted
        counted += args[0].shape[0] * args[0].shape[1]

    # A block's first norm: the block itself is also called where it passes its input on for nothing.
    norms = [block.ln_1 for block in hooked.hf.transformer.h]
    handles = [norm.register_forward_pre_hook(count) for norm in norms]
    try:
        found = effects(hooked, contrast, cells, metric="probability")
    finally:
        for handle in handles:
            handle.remove()
    n, n_layers = width - first, hooked.n_layers
    # A clean state at the first noised column makes that column clean: it is not run again.
    suffixes = samples * (n * (n + 1) // 2 - 1) * (n_layers * (n_layers - 1) // 2)
    assert counted == found.block_tokens == suffixes + width * n_layers + samples * n * n_layers


def test_behind_states_of_every_noised_token_the_run_is_the_clean_one() -> None:
    """Tokens noised in either prompt put in at once: later ones run on the clean keys and values."""
    hooked = model("gpt2")
    contrast = noised(hooked)
    cells = [(Put(Site("resid_post", layer), (1, 2, 3, 4)),) for layer in (0, 1, 2)]
    found = effects(hooked, contrast, cells, metric="logprob")
    naive = effects(hooked, contrast, cells, metric="logprob", algorithm="naive")
    torch.testing.assert_close(found.patched, naive.patched, **EXACT)
    torch.testing.assert_close(
        found.patched[0], found.clean[:, None].expand_as(found.patched[0]), **EXACT
    )
    runs = 2 * 8 * 3 + 2 * SAMPLES * 7 * 3
    assert found.block_tokens == runs + 2 * SAMPLES * 3 * (3 + 2 + 1)


def test_windows_with_one_left_edge_share_their_rows() -> None:
    """Of 3 blocks and windows [1, 1], [1, 2], [2, 3] at one token of 8, six tokens from the end.

    The runs themselves take 8 and 6 columns. Block 1 runs the token alone, once; block 2 six columns
    twice (the first window and the second, whose rows were one) and the third window's token alone;
    block 3 six columns three times.
    """
    hooked = model("gpt2")
    (prompt, _) = prompts(hooked)
    contrast = Contrast.by_noise(hooked, [prompt], std=STD, samples=1, seed=0)
    cells = [
        cell_of([Put(Site("mlp_out", k), (2,)) for k in blocks])
        for blocks in ((1,), (1, 2), (2, 3))
    ]
    found = effects(hooked, contrast, cells, metric="probability")
    assert found.block_tokens == (8 + 6) * 3 + 1 + (6 + 6 + 1) + 3 * 6


@pytest.mark.parametrize("algorithm", ["wave", "restart", "naive"])
def test_what_is_planned_is_what_is_done(algorithm: str) -> None:
    hooked = model("gpt2")
    contrast = noised(hooked)
    cells = every_kind(contrast.width, hooked.n_layers)
    found = effects(hooked, contrast, cells, metric="logprob", algorithm=algorithm)
    sizes = {"n_layers": 3, "width": 8, "same": contrast.same, "prompts": 2, "samples": SAMPLES}
    assert planned(cells, algorithm=algorithm, **sizes) == found.block_tokens


def test_nothing_is_left_on_the_model() -> None:
    hooked = model("gpt2")
    before = {name: len(m._forward_hooks) for name, m in hooked.hf.named_modules()}
    effects(hooked, noised(hooked), every_kind(8, 3), metric="logprob")
    assert before == {name: len(m._forward_hooks) for name, m in hooked.hf.named_modules()}
    assert not any("forward" in module.__dict__ for module in hooked.hf.modules())
