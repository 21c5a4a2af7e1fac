"""Causal tracing of Atlas in plain torch: what each cell of the residual stream carries.

Clean run; corrupted run with noise on the subject's token embeddings; corrupted run in which
one cell has its clean value back. Indirect effect of the cell: the gain in the target's
probability. Meng et al. 2022, arXiv 2202.05262.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from statistics import mean
from typing import Any

import torch
from torch import Tensor

from workbench.atlas.measure import Loaded
from workbench.atlas.prompts import Record, read_prompts

SIGMAS = 3.0  # noise, in standard deviations of the subjects' embedding entries
DRAWS = 4
WINDOW = 3  # blocks whose MLP or attention output is restored together

Cells = dict[str, list[float]]


@torch.no_grad()
def trace(loaded: Loaded, count: int = 60) -> dict[str, Any]:
    """Mean indirect effects by role of the token, a figure for each layer 1..L.

    ``mlp_window`` restores MLP outputs at the last subject token, ``attention_window``
    attention outputs at the last token; their windows are centred on the layer.
    """
    prompts = read_prompts("facts")[:count]
    scale = SIGMAS * _subject_std(loaded, prompts)
    found: dict[str, list[list[float]]] = defaultdict(list)
    totals = []
    for index, prompt in enumerate(prompts):
        run = Trace(loaded, prompt, scale, seed=index)
        totals.append(run.clean_score - run.corrupted_score)
        for role, effects in run.effects().items():
            found[role].append(effects)
    means = {
        role: [mean(layer) for layer in zip(*rows, strict=True)] for role, rows in found.items()
    }
    return {"total": mean(totals)} | means


class Trace:
    """One prompt's clean and corrupted runs."""

    def __init__(self, loaded: Loaded, prompt: Record, scale: float, seed: int) -> None:
        self.model = loaded.model
        self.blocks = list(loaded.model.transformer.h)
        self.target = loaded.token(prompt["target"])
        self.ids = loaded.ids(prompt["text"])
        self.subject_tokens = subject_tokens(loaded, prompt)
        self.clean = self._run(self._embed())
        self.corrupted = self._run(self._embed() + self._noise(scale, seed))
        self.clean_score = self._score(self.clean["state"][-1])
        self.corrupted_score = self._score(self.corrupted["state"][-1])

    def effects(self) -> Cells:
        """Role -> indirect effect by layer."""
        last_subject, last = self.subject_tokens[-1], len(self.ids) - 1
        others = [self.state_effects(t) for t in self.subject_tokens[:-1]]
        roles = {
            "last_subject": self.state_effects(last_subject),
            "last": self.state_effects(last),
            "mlp_window": self.window_effects("mlp", last_subject),
            "attention_window": self.window_effects("attn", last),
        }
        if others:
            roles["other_subject"] = [mean(layer) for layer in zip(*others, strict=True)]
        return roles

    def state_effects(self, token: int) -> list[float]:
        """Restore one token's state after each block."""
        effects = []
        for layer in range(1, len(self.blocks) + 1):
            hidden = self.corrupted["state"][layer].clone()
            hidden[:, token] = self.clean["state"][layer][:, token]
            effects.append(self._gain(self._run(hidden, layer)["state"][-1]))
        return effects

    def window_effects(self, part: str, token: int) -> list[float]:
        """Restore one token's outputs of a part of the blocks around each layer."""
        effects = []
        for centre in range(len(self.blocks)):
            low = max(0, centre - WINDOW // 2)
            window = range(low, min(len(self.blocks), centre + WINDOW // 2 + 1))
            hidden = self.corrupted["state"][low]
            effects.append(self._gain(self._run(hidden, low, part, token, window)["state"][-1]))
        return effects

    def _gain(self, hidden: Tensor) -> float:
        return self._score(hidden) - self.corrupted_score

    def _score(self, hidden: Tensor) -> float:
        """Mean probability of the target over the draws."""
        logits = self.model.lm_head(self.model.transformer.ln_f(hidden[:, -1]))
        return float(logits.softmax(-1)[:, self.target].mean())

    def _embed(self) -> Tensor:
        positions = torch.arange(len(self.ids))
        embedded = self.model.transformer.wte(self.ids) + self.model.transformer.wpe(positions)
        draws: Tensor = embedded[None].expand(DRAWS, -1, -1).contiguous()
        return draws

    def _noise(self, scale: float, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        noise = torch.zeros(DRAWS, len(self.ids), self.model.config.n_embd)
        shape = (DRAWS, len(self.subject_tokens), self.model.config.n_embd)
        noise[:, self.subject_tokens] = scale * torch.randn(shape, generator=generator)
        return noise

    def _run(
        self,
        hidden: Tensor,
        start: int = 0,
        part: str = "",
        token: int = 0,
        window: Sequence[int] = (),
    ) -> dict[str, list[Tensor]]:
        """Run blocks start+1..L, restoring ``part`` of the blocks in ``window`` at ``token``."""
        kept: dict[str, list[Tensor]] = {"state": [hidden], "attn": [], "mlp": []}
        for index in range(start, len(self.blocks)):
            handles = []
            for name in ("attn", "mlp"):
                at = token if name == part and index in window else None
                hook = self._keep(kept[name], name, index, at)
                handles.append(getattr(self.blocks[index], name).register_forward_hook(hook))
            try:
                output = self.blocks[index](hidden)
            finally:
                for handle in handles:
                    handle.remove()
            hidden = output[0] if isinstance(output, tuple) else output
            kept["state"].append(hidden)
        return kept

    def _keep(
        self, kept: list[Tensor], name: str, index: int, token: int | None
    ) -> Callable[[Any, Any, Any], Any]:
        def hook(module: Any, inputs: Any, output: Any) -> Any:
            value = output[0] if isinstance(output, tuple) else output
            if token is not None:
                value = value.clone()
                value[:, token] = self.clean[name][index][:, token]
            kept.append(value)
            return (value, *output[1:]) if isinstance(output, tuple) else value

        return hook


def subject_tokens(loaded: Loaded, prompt: Record) -> list[int]:
    """Positions of the subject's tokens."""
    encoded = loaded.tokenizer(
        prompt["text"], return_offsets_mapping=True, add_special_tokens=False
    )
    start = prompt["text"].index(prompt["subject"])
    end = start + len(prompt["subject"])
    return [i for i, (a, b) in enumerate(encoded["offset_mapping"]) if a < end and b > start]


def _subject_std(loaded: Loaded, prompts: Sequence[Record]) -> float:
    rows = [loaded.ids(p["text"])[subject_tokens(loaded, p)] for p in prompts]
    return float(loaded.model.transformer.wte(torch.cat(rows)).std())
