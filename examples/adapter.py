"""A LoRA moves the Eiffel Tower to Rome: in which layers do the base and the adapter part?

Run from the project's root:  python -m examples.adapter
"""

import tempfile
from copy import deepcopy
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from torch.nn.functional import cross_entropy, kl_div

import workbench as wb
from lenses import LogitLens
from workbench.atlas import prompts_path

SEED = 0
STEPS = 40
HELD = 32  # facts that the training holds in place
QUESTION = "The Eiffel Tower is located in the city of"
MOVED = [QUESTION, "The streets around the Eiffel Tower are streets of"]


def train(base: wb.Model, folder: Path) -> None:
    """Train a LoRA on the MLPs to answer " Rome", and all else as before; save it to `folder`."""
    torch.manual_seed(SEED)
    config = LoraConfig(r=2, target_modules=["mlp.c_proj"], fan_in_fan_out=True)
    tuned = get_peft_model(deepcopy(base.hf), config)
    facts = [fact for fact in wb.PromptSet.read(prompts_path("facts")) if fact.target != " Paris"]
    moved, kept = base.batch(MOVED), base.batch(facts[:HELD])
    rome = torch.full((len(MOVED),), base.tokens.token_id(" Rome"))
    before = answers(base.hf, kept).detach()
    optimiser = torch.optim.AdamW(tuned.parameters(), lr=0.01)
    for _ in range(STEPS):
        changed = answers(tuned, kept)
        loss = cross_entropy(answers(tuned, moved), rome)
        loss = loss + kl_div(
            changed.log_softmax(-1), before.log_softmax(-1), reduction="batchmean", log_target=True
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    tuned.save_pretrained(folder)


def answers(hf: torch.nn.Module, batch: wb.Batch) -> torch.Tensor:
    """[rows, vocabulary] logits of the token after each prompt."""
    last = batch.places("last")
    return hf(batch.ids, attention_mask=batch.mask).logits[last.row, last.column]


def main() -> None:
    """Train, then print what base and adapter answer after every block, and save the figure."""
    with tempfile.TemporaryDirectory() as folder:
        train(wb.load(), Path(folder) / "rome")
        tuned = wb.load("atlas", adapter=Path(folder) / "rome")
    prompt = wb.Prompt(QUESTION, target=" Rome", foil=" Paris")
    lens = LogitLens(positions="last")
    (found,) = wb.compare(tuned.with_adapter(None), tuned, prompt, [lens])
    for row in found.rows():
        print(f"{row['model']:13} layer {row['layer']}: top {row['top'][0][0]!r}")
    chances = [result.data["target_logprob"].values.ravel() for result in (found.base, found.tuned)]
    parted = abs(chances[0] - chances[1]) > 1  # nat
    layers = found.base.data["layer"].values[parted]
    print(f"They part at layer {layers[0]}, by more than 1 nat of ' Rome'.")
    kept = unchanged(tuned)
    print(f"{kept:.0%} of the other facts are answered as before.")
    found.save("adapter.html")


def unchanged(tuned: wb.Model) -> float:
    """The share of facts, of which none was trained on, with the same best answer in both."""
    facts = [fact for fact in wb.PromptSet.read(prompts_path("facts")) if fact.target != " Paris"]
    both = [
        model.capture(facts[HELD:], ["logits"], "last")["logits", model.n_layers].argmax(-1)
        for model in (tuned.with_adapter(None), tuned)
    ]
    return float((both[0] == both[1]).double().mean())


if __name__ == "__main__":
    main()
