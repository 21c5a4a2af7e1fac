"""A causal trace against a whole run for each cell, on a GPT-2-small-shaped random model.

12 blocks, 12 tokens, 10 samples of noise, 144 cells. One side is the instrument's whole grid; the
others run every `STEP`-th cell, which all cost the same there, and their time is taken `STEP` times.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

import workbench as wb
from benchmarks.clock import interleave, peak_mib
from benchmarks.line import Line
from benchmarks.logit_lens import random_gpt2
from probes.causal.cells import Cell
from probes.causal.contrast import Contrast
from probes.causal.corruption import noise
from probes.causal.effects import Effects, effects
from probes.tracing.grid import grid, window_of
from workbench.atlas.prompts import read_prompts
from workbench.models.tokens import EncodedPrompt

__all__ = ["run"]

WIDTH, SAMPLES, STD, TARGET, STEP = 12, 10, 0.1, 1234, 12
NEAR, NEAR_LOG = 1e-5, 1e-4  # of probabilities, and of their logarithms
PARTS = (
    # site, window, first corrupted token, goals over the reference's way and the lean loop
    ("resid_post", 1, 0, 6.0, 4.3),
    ("resid_post", 1, 3, 9.0, 7.4),
    ("mlp_out", 10, 0, 4.8, 3.5),
)


def run(device: torch.device, rounds: int) -> Iterator[Line]:
    """Measure and compare; the sides are checked to give the same probabilities first."""
    torch.manual_seed(0)
    model = random_gpt2(device)
    for site, window, first, over_reference, over_lean in PARTS:
        yield from trace(Task.of(model, site, window, first), rounds, over_reference, over_lean)
    yield from peers(Task.of(model, "resid_post", 1, 0), rounds)
    yield together(rounds)


@dataclass(frozen=True)
class Task:
    """One prompt's grid at a site."""

    model: wb.TorchModel
    contrast: Contrast
    shift: Tensor
    site: str
    window: int

    @classmethod
    def of(cls, model: wb.TorchModel, site: str, window: int, first: int) -> Task:
        """Random tokens, three of them, from `first` on, noised."""
        ids = tuple(torch.randint(0, model.vocab_size, (WIDTH,)).tolist())
        text = "x" * WIDTH  # one character a token, so that characters place the subject
        spans = tuple((i, i + 1) for i in range(WIDTH))
        prompt = EncodedPrompt(
            wb.Prompt(text, subject=(first, first + 3)), ids, spans, TARGET, None
        )
        contrast = Contrast.by_noise(model, [prompt], std=STD, samples=SAMPLES, seed=0)
        shift = noise(prompt, WIDTH, SAMPLES, STD, model.d_model, 0).to(model.embedding)
        return cls(model, contrast, shift, site, window)

    @property
    def cells(self) -> list[Cell]:
        """All of them, layer by layer."""
        n_layers = self.model.n_layers
        return grid([self.site], range(1, n_layers + 1), range(WIDTH), self.window, n_layers)

    @property
    def some(self) -> Sequence[tuple[int, int]]:
        """(layer, token) of every `STEP`-th cell, every token and layer among them."""
        n_layers = self.model.n_layers
        return [(1 + i % n_layers, (5 * i + 7) % WIDTH) for i in range(n_layers * WIDTH // STEP)]

    @torch.no_grad()
    def swept(self) -> Effects:
        """Ours."""
        return effects(self.model, self.contrast, self.cells, metric="probability")

    def modules(self, layer: int) -> list[Any]:
        """Those whose outputs are restored at a layer."""
        blocks = self.model.hf.transformer.h
        if self.site == "resid_post":
            return [blocks[layer - 1]]
        return [blocks[k - 1].mlp for k in window_of(layer, self.window, self.model.n_layers)]


@torch.no_grad()
def reference(task: Task) -> Tensor:
    """[cells, samples]: each cell one run of a clean row and the noised ones, all logits."""
    hf, ids = task.model.hf, task.contrast.batch.ids
    noised = torch.cat([torch.zeros_like(task.shift[:1]), task.shift])
    found = []
    for layer, token in task.some:
        hooks: list[tuple[Any, Callable[[Tensor], Tensor]]] = [
            (hf.transformer.wte, lambda out: out + noised)
        ]
        hooks += [(module, partial(_from_row, token)) for module in task.modules(layer)]
        with _hooked(hooks):
            logits = hf(input_ids=ids.expand(len(noised), -1), use_cache=False).logits
        found.append(logits[1:, -1].softmax(-1)[:, TARGET])
    return torch.stack(found)


@torch.no_grad()
def clean_run(task: Task) -> dict[Any, Tensor]:
    """What the modules of some cells give in the clean run; made once, outside of what is timed."""
    kept: dict[Any, Tensor] = {}
    every = {module: None for layer, _ in task.some for module in task.modules(layer)}
    with _hooked([(module, partial(_kept, kept, module)) for module in every]):
        task.model.hf(input_ids=task.contrast.batch.ids, use_cache=False, logits_to_keep=1)
    return kept


@torch.no_grad()
def lean(task: Task, kept: dict[Any, Tensor]) -> Tensor:
    """The same from a clean run that is kept: noised rows alone, logits at the last token alone."""
    hf, ids = task.model.hf, task.contrast.batch.ids
    found = []
    for layer, token in task.some:
        hooks: list[tuple[Any, Callable[[Tensor], Tensor]]] = [
            (hf.transformer.wte, lambda out: out + task.shift)
        ]
        hooks += [(m, partial(_from_kept, kept[m], token)) for m in task.modules(layer)]
        with _hooked(hooks):
            ids_of_all = ids.expand(SAMPLES, -1)
            logits = hf(input_ids=ids_of_all, use_cache=False, logits_to_keep=1).logits
        found.append(logits[:, -1].softmax(-1)[:, TARGET])
    return torch.stack(found)


def _from_row(token: int, value: Tensor) -> Tensor:
    value = value.clone()
    value[1:, token] = value[0, token]
    return value


def _from_kept(kept: Tensor, token: int, value: Tensor) -> Tensor:
    value = value.clone()
    value[:, token] = kept[:, token]
    return value


def _kept(kept: dict[Any, Tensor], module: Any, value: Tensor) -> Tensor:
    kept[module] = value
    return value


@contextmanager
def _hooked(hooks: Sequence[tuple[Any, Callable[[Tensor], Tensor]]]) -> Iterator[None]:
    with ExitStack() as stack:
        for module, change in hooks:
            stack.callback(module.register_forward_hook(partial(_changed, change)).remove)
        yield


def _changed(change: Callable[[Tensor], Tensor], module: Any, args: Any, out: Any) -> Any:
    return (change(out[0]), *out[1:]) if isinstance(out, tuple) else change(out)


def agree(task: Task, other: Tensor) -> tuple[float, float]:
    """The largest difference of a probability from those of `some` cells, and of its logarithm in nat.

    A random model's probabilities are near one over its vocabulary, far below any bound of the first.
    """
    found = task.swept().patched[:, 0].view(task.model.n_layers, WIDTH, SAMPLES)
    own = torch.stack([found[layer - 1, token] for layer, token in task.some])
    return float((own - other).abs().max()), float((own.log() - other.log()).abs().max())


def trace(task: Task, rounds: int, over_reference: float, over_lean: float) -> Iterator[Line]:
    """The whole grid over the reference's way and over the lean loop; numbers and memory."""
    first, n_layers = task.contrast.same, task.model.n_layers
    named = f"{task.site}, first noised token {first}, window {task.window}"
    kept = clean_run(task)
    both = [agree(task, lean(task, kept)), agree(task, reference(task))]
    worst, relative = (max(each) for each in zip(*both, strict=True))
    yield Line(f"trace, {named}: largest |dp|", worst, NEAR, "")
    yield Line(f"trace, {named}: largest |d log p|", relative, NEAR_LOG, "", "nat")
    sides = {
        "ours": task.swept,
        "reference": partial(reference, task),
        "lean": partial(lean, task, kept),
    }
    times = interleave(sides, rounds)
    tokens = task.swept().block_tokens
    floor = (SAMPLES * WIDTH * n_layers * WIDTH * n_layers) / tokens
    for other, goal in (("reference", over_reference), ("lean", over_lean)):
        detail = (
            f"{times.median('ours'):.1f} s against {STEP} x {times.median(other):.2f} s: "
            f"{STEP / times.ratio('ours', other):.2f} times sooner"
        )
        ratio = times.ratio("ours", other) / STEP
        yield Line(f"trace, {named} / {other}, time", ratio, 1 / goal, detail)
    yield Line(f"trace, {named}: block-tokens / lean's", 1 / floor, None, f"{tokens} block-tokens")
    used = peak_mib(task.swept, task.model.device)
    yield Line(f"trace, {named}: memory", used, 300, "above the model", "MiB")


def together(rounds: int) -> Line:
    """Eight prompts of one length on Atlas in one sweep, over a sweep each."""
    atlas = wb.load()
    facts = atlas_prompts(atlas)
    n_layers, width = atlas.n_layers, len(facts[0])
    cells = grid(["resid_post"], range(1, n_layers + 1), range(width), 1, n_layers)

    def swept(prompts: Sequence[EncodedPrompt]) -> Tensor:
        contrast = Contrast.by_noise(atlas, prompts, std=0.4, samples=SAMPLES, seed=0)
        return effects(atlas, contrast, cells, metric="probability").patched

    def one_by_one() -> Tensor:
        return torch.cat([swept([prompt]) for prompt in facts], dim=1)

    assert (swept(facts) - one_by_one()).abs().max() < 1e-5
    times = interleave({"together": partial(swept, facts), "each": one_by_one}, rounds)
    ratio = times.ratio("together", "each")
    detail = f"{times.median('together'):.2f} s against {times.median('each'):.2f} s"
    return Line(
        f"trace, {len(facts)} prompts of Atlas in one sweep / a sweep each", ratio, None, detail
    )


def atlas_prompts(atlas: wb.Engine) -> list[EncodedPrompt]:
    """The first eight of its facts that have the commonest length."""
    facts = [atlas.encode(wb.Prompt.from_fields(fact)) for fact in read_prompts("facts")]
    (length, _), *_ = Counter(map(len, facts)).most_common()
    return [fact for fact in facts if len(fact) == length][:8]


def peers(task: Task, rounds: int) -> Iterator[Line]:
    """The same cells by transformer-lens' and nnsight's own calls, a run for each."""
    from nnsight import NNsight

    sides: dict[str, Callable[[], object]] = {"ours": task.swept}
    bridge = wb.load(task.model.hf, task.model.tokenizer, engine="transformer_lens").bridge
    with torch.no_grad():
        _, cache = bridge.run_with_cache(task.contrast.batch.ids)
    sides["transformer-lens"] = partial(by_transformer_lens, task, bridge, cache)
    sides["nnsight"] = partial(by_nnsight, task, NNsight(task.model.hf), clean_run(task))
    for name in ("transformer-lens", "nnsight"):
        found = sides[name]()
        assert isinstance(found, Tensor)
        absolute, relative = agree(task, found)
        assert absolute < NEAR, name
        assert relative < NEAR_LOG, name
    times = interleave(sides, rounds)
    for name in ("transformer-lens", "nnsight"):
        ratio = times.ratio("ours", name) / STEP
        detail = f"{1 / ratio:.2f} times sooner"
        yield Line(f"trace, states, first noised token 0 / {name}, time", ratio, None, detail)


@torch.no_grad()
def by_transformer_lens(task: Task, bridge: Any, cache: Any) -> Tensor:
    """Each cell one `run_with_hooks` over the noised rows."""
    ids = task.contrast.batch.ids
    found = []
    for layer, token in task.some:
        name = f"blocks.{layer - 1}.hook_out"
        clean = cache[name]
        hooks = [
            ("embed.hook_out", lambda value, hook: value + task.shift),
            (name, lambda value, hook, clean=clean, at=token: _from_kept(clean, at, value)),
        ]
        logits = bridge.run_with_hooks(ids.expand(SAMPLES, -1), fwd_hooks=hooks)
        found.append(logits[:, -1].softmax(-1)[:, TARGET])
    return torch.stack(found)


@torch.no_grad()
def by_nnsight(task: Task, model: Any, clean: dict[Any, Tensor]) -> Tensor:
    """Each cell one trace over the noised rows."""
    ids, blocks = task.contrast.batch.ids, task.model.hf.transformer.h
    found = []
    for layer, token in task.some:
        own = clean[blocks[layer - 1]][:, token]
        with model.trace(input_ids=ids.expand(SAMPLES, -1)):
            model.transformer.wte.output = model.transformer.wte.output + task.shift
            model.transformer.h[layer - 1].output[:, token] = own
            logits = model.output.logits[:, -1].save()
        found.append(logits.softmax(-1)[:, TARGET])
    return torch.stack(found)
