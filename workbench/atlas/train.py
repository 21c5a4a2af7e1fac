"""Rebuild the bundled models: ``python -m workbench.atlas.train atlas --out DIR``.

One thread, fixed seeds: on one machine the same weights come out bit for bit.
"""

import argparse
import math
import sys
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from workbench.atlas.batches import Batch, batches
from workbench.atlas.recipe import RECIPES, Recipe
from workbench.atlas.start import start_by_hand
from workbench.atlas.tokenizer import train_tokenizer


def train(recipe: Recipe, out: Path) -> GPT2LMHeadModel:
    """Train, writing checkpoints below ``out`` and the final model into it; returns the model."""
    torch.set_num_threads(1)
    tokenizer = train_tokenizer(recipe.context)
    model = new_model(recipe, len(tokenizer))
    stream = batches(recipe, tokenizer)
    optimisers = _optimisers(model, recipe)
    for step in range(recipe.steps):
        if step in recipe.checkpoints:
            save_checkpoint(model, out, step)
        loss = _step(model, optimisers, next(stream), recipe, step)
        if step % 100 == 0:
            sys.stderr.write(f"step {step} loss {loss:.3f}\n")
    save(model, tokenizer, out)
    return model


def new_model(recipe: Recipe, vocabulary: int) -> GPT2LMHeadModel:
    """The model before training; its position table starts from sinusoids."""
    torch.manual_seed(recipe.seed)
    model = GPT2LMHeadModel(_config(recipe, vocabulary))
    if recipe.position_scale:
        start_by_hand(model, recipe.position_scale)
    return model.train()


def save(model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write a folder for ``from_pretrained``: float16 on disk, float32 once loaded."""
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(out)
    model.config.save_pretrained(out)
    model.generation_config.save_pretrained(out)
    save_file(half_weights(model), out / "model.safetensors", {"format": "pt"})


def save_checkpoint(model: GPT2LMHeadModel, out: Path, step: int) -> None:
    """Weights only, as they stand before ``step``."""
    folder = out / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    save_file(half_weights(model), folder / f"step-{step:05d}.safetensors", {"format": "pt"})


def half_weights(model: GPT2LMHeadModel) -> dict[str, Tensor]:
    """Name -> float16 tensor; the tied output matrix is left out."""
    state = model.state_dict()
    return {k: v.half().contiguous() for k, v in state.items() if k != "lm_head.weight"}


def _config(recipe: Recipe, vocabulary: int) -> GPT2Config:
    return GPT2Config(
        vocab_size=vocabulary,
        n_positions=recipe.context,
        n_embd=recipe.width,
        n_layer=recipe.layers,
        n_head=recipe.heads,
        initializer_range=recipe.initial_std,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
        architectures=["GPT2LMHeadModel"],
        dtype="float32",
    )


def _optimisers(model: GPT2LMHeadModel, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for the rest."""
    matrices = [p for p in model.transformer.h.parameters() if p.dim() > 1]
    chosen = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in chosen]
    return [
        torch.optim.Muon(
            matrices, lr=recipe.matrix_rate, momentum=recipe.momentum, weight_decay=0.0
        ),
        torch.optim.AdamW(others, lr=recipe.peak_rate, betas=recipe.betas, weight_decay=0.0),
    ]


def _step(
    model: GPT2LMHeadModel,
    optimisers: list[torch.optim.Optimizer],
    batch: Batch,
    recipe: Recipe,
    step: int,
) -> float:
    peaks = (recipe.matrix_rate, recipe.peak_rate)
    for optimiser, peak in zip(optimisers, peaks, strict=True):
        optimiser.param_groups[0]["lr"] = peak * rate_share(recipe, step)
    loss = weighted_loss(model, batch, recipe.early_layers)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
    for optimiser in optimisers:
        optimiser.step()
        optimiser.zero_grad()
    return loss.item()


def weighted_loss(model: GPT2LMHeadModel, batch: Batch, early_layers: int) -> Tensor:
    """Weighted mean cross-entropy in nats."""
    ids, weights, visible = batch
    masks = torch.zeros(visible.shape).masked_fill(~visible, torch.finfo(torch.float32).min)
    with torch.autocast("cpu", torch.bfloat16):
        logits = masked_logits(model, ids, masks, early_layers)
    losses = torch.nn.functional.cross_entropy(
        logits[:, :-1].float().flatten(0, 1), ids[:, 1:].flatten(), reduction="none"
    )
    scale = weights[:, 1:].flatten()
    return (losses * scale).sum() / scale.sum()


def masked_logits(model: GPT2LMHeadModel, ids: Tensor, masks: Tensor, early_layers: int) -> Tensor:
    """[row, token, vocabulary]: GPT-2's own blocks, with one mask for each part of the depth.

    ``masks`` [2, row, 1, token, token] are added to attention scores: the first in layers
    1..early_layers, the second above.
    """
    body = model.transformer
    hidden = body.wte(ids) + body.wpe(torch.arange(ids.shape[1]))
    for index, block in enumerate(body.h):
        output = block(hidden, attention_mask=masks[int(index >= early_layers)])
        hidden = output[0] if isinstance(output, tuple) else output
    logits: Tensor = model.lm_head(body.ln_f(hidden))
    return logits


def rate_share(recipe: Recipe, step: int) -> float:
    """Learning rate in units of its peak: linear warm-up, then a cosine to the last share."""
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.last_share + (1 - recipe.last_share) * (1 + math.cos(math.pi * done)) / 2


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m workbench.atlas.train", description=__doc__)
    parser.add_argument("model", choices=sorted(RECIPES))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int)
    parsed = parser.parse_args(arguments)
    recipe = RECIPES[parsed.model]
    train(replace(recipe, steps=parsed.steps or recipe.steps), parsed.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
