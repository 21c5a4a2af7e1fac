"""What Hugging Face itself computes: the other side of every comparison.

A forward of the unmodified model in eager attention, one prompt at a time and so without padding,
read by hooks of its own and by Hugging Face's `output_hidden_states` and `output_attentions`. None
of the workbench's hooks, masks or tables of families takes part.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from workbench.conformance.attention import HEADS, product
from workbench.conformance.plain import forward, stack_outputs
from workbench.conformance.stream import States, add_at, stack_states
from workbench.conformance.structure import stacks_of, twin_of
from workbench.conformance.tolerance import Dtypes, Tolerance
from workbench.conformance.watching import watched

__all__ = ["ENCODER", "Oracle", "eager_is_right", "stack_of"]

Added = Mapping[tuple[str, int], Tensor]
ENCODER = "encoder."


def eager_is_right(config: Any) -> bool:
    """Whether Hugging Face's eager attention computes what its own fused one does.

    In transformers 5.23 Falcon's eager code adds ALiBi twice: the model's own kind serves there.
    """
    return not (config.model_type == "falcon" and config.alibi)


def stack_of(site: str) -> tuple[str, str]:
    """The prefix of a site's stack, and the rest of its name."""
    return (ENCODER, site.removeprefix(ENCODER)) if site.startswith(ENCODER) else ("", site)


class Oracle:
    """Hugging Face's own values, gradients and edited logits of one model.

    Args:
        hf: a Hugging Face language model; it is left as it is.
        ids: token ids of any prompt of some tokens, to find the model's parts with.

    Attributes:
        hf: a twin of the model over the same weights.
        eager: whether the twin runs eager attention (see `eager_is_right`).
        stacks: its stacks, by the prefix of their sites.
        tolerance: what rounding allows on this model.
    """

    def __init__(self, hf: Any, ids: tuple[int, ...]) -> None:
        self.eager = eager_is_right(hf.config)
        self.hf = twin_of(hf, "eager" if self.eager else hf.config._attn_implementation)
        self.device = hf.get_input_embeddings().weight.device
        self._known: dict[tuple[tuple[int, ...], bool], States] = {}
        self.stacks = stacks_of(self.hf, self._row(ids))
        blocks = [block for stack in self.stacks.values() for block in stack.blocks]
        routed = any("mlp_act" not in block.maps for block in blocks)
        self.tolerance = Tolerance(self._eps(self._row(ids)), routed)

    def _eps(self, ids: Tensor) -> float:
        """Of the coarsest dtype of all that is computed from the decoder's first hidden state."""
        found = self.states(tuple(ids[0].tolist()))["embed", 0]
        dtypes = Dtypes()
        with dtypes:
            self.gradable_logits(
                ids, {("embed", 0): torch.zeros_like(found)[None].requires_grad_()}
            )
        return dtypes.eps

    def n_layers(self, prefix: str = "") -> int:
        """The number of blocks of one stack."""
        return len(self.stacks[prefix].blocks)

    def _row(self, ids: tuple[int, ...]) -> Tensor:
        return torch.tensor([ids], device=self.device)

    def states(self, ids: tuple[int, ...], *, disturbed: bool = False) -> States:
        """Every site of one prompt; with the stream disturbed by noise if asked."""
        key = (ids, disturbed)
        if key not in self._known:
            self._known[key] = self._read(self._row(ids), self.noise(ids) if disturbed else {})
        return self._known[key]

    def noise(self, ids: tuple[int, ...]) -> dict[tuple[str, int], Tensor]:
        """One rounding's worth of noise for the state after every block, [1, T, d]."""
        generator = torch.Generator().manual_seed(0)
        states = self.states(ids)
        found = {}
        for prefix, stack in self.stacks.items():
            for layer in range(len(stack.blocks) + 1):
                value = states[prefix + "resid_post", layer][None]
                drawn = torch.randn(value.shape, generator=generator).to(value.device)
                size = value.double().square().mean(-1, keepdim=True).sqrt()
                noise = (drawn * size * self.tolerance.eps).to(value.dtype)
                found[prefix + "resid_post", layer] = noise
        return found

    @torch.no_grad()
    def _read(self, ids: Tensor, added: Added) -> States:
        with ExitStack() as stack:
            self._add(stack, added)
            calls = stack.enter_context(watched(self.hf))
            heads = stack.enter_context(product(self.stacks))
            out = forward(self.hf, ids, output_hidden_states=True, output_attentions=self.eager)
        by_module = {id(call.module): call for call in calls}
        states: States = {("logits", self.n_layers()): out.logits}
        for prefix, hidden in stack_outputs(self.hf, out, "hidden_states").items():
            parts = self.stacks[prefix]
            states |= _prefixed(prefix, stack_states(parts, by_module, hidden[0]))
        if self.eager:
            states |= heads.seen
            states |= self._patterns(out)
        return {site: value.detach()[0] for site, value in states.items()}

    def _patterns(self, out: Any) -> States:
        """Hugging Face's own attention weights, [1, T, heads, keys]."""
        found = {p + "pattern": w for p, w in stack_outputs(self.hf, out, "attentions").items()}
        if self.hf.config.is_encoder_decoder:
            found["cross_pattern"] = out.cross_attentions
        return {
            (site, layer): weights.transpose(1, 2)
            for site, layers in found.items()
            for layer, weights in enumerate(layers, 1)
        }

    @torch.no_grad()
    def logits(self, ids: Tensor, added: Added | None = None) -> Tensor:
        """Logits where `added` is added to the values of some sites.

        Args:
            ids: [rows, T] prompts of equal length.
            added: (site, layer) -> [rows, T, ...].

        Returns:
            [rows, T, vocabulary]; of two stacks, the decoder's T.

        Raises:
            LookupError: the model has no such site.
        """
        return self.gradable_logits(ids, added or {})

    def gradable_logits(self, ids: Tensor, added: Added) -> Tensor:
        """As `logits`, and they can be differentiated by what is added."""
        heads = {site: extra for site, extra in added.items() if _in_product(site[0])}
        with ExitStack() as stack:
            if heads:
                stack.enter_context(product(self.stacks, heads))
            self._add(stack, {site: added[site] for site in added.keys() - heads.keys()})
            logits: Tensor = forward(self.hf, ids).logits
        return logits

    def _add(self, stack: ExitStack, added: Added) -> None:
        for (name, layer), extra in added.items():
            prefix, site = stack_of(name)
            add_at(stack, self.stacks[prefix], (site, layer), extra)


def _in_product(site: str) -> bool:
    return stack_of(site)[1].removeprefix("cross_") in HEADS


def _prefixed(prefix: str, states: States) -> States:
    return {(prefix + name, layer): value for (name, layer), value in states.items()}
