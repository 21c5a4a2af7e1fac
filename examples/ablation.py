"""Short-circuit blocks and take out heads, on sentences that the bundled model was trained on and not.

Run from the project's root:  python -m examples.ablation [how many facts; 60 where it is left out]
"""

import sys
from random import Random

import workbench as wb
from probes import Ablate
from probes.ablation.comparison import compared
from workbench.atlas.facts import Fact, read_facts
from workbench.atlas.templates import clause, held_out, trained_on

MEMORISED, HELD_OUT = "memorised", "held out"


def sentences(count: int, seed: int = 0) -> list[wb.Prompt]:
    """Facts, each in a sentence of the training text and in a template that it was never met in."""
    facts = Random(seed).sample(read_facts(), count)
    return [
        sentence(fact, kind, template)
        for fact in facts
        for kind, template in ((MEMORISED, trained_on(fact)[0]), (HELD_OUT, held_out(fact)[0]))
    ]


def sentence(fact: Fact, kind: str, template: int) -> wb.Prompt:
    """One fact up to its answer. The two sentences of a fact are a group, so they are compared in pairs."""
    name = f"{fact.subject}, {fact.relation}"
    text = clause(fact, template).text
    return wb.Prompt(
        text, id=f"{name}, {kind}", target=f" {fact.answer}", group=name, extra={"text_is": kind}
    )


def print_layers(model: wb.Model, prompts: list[wb.Prompt], what: str) -> None:
    """What each layer's part is worth to memorised and to held-out text, beside the control."""
    every = Ablate(what=what, how="mean", compare="text_is")(model, prompts).rows()
    print(f"{what}, mean over the set put in; change with 95% interval, paired by fact")
    for name, unit in (("loss_effect", "loss, nat per token"), ("effect", "log p(answer), nat")):
        print(f"  {unit}")
        for layer in range(1, model.n_layers + 1):
            rows = [row for row in every if row["layer"] == layer]
            one = compared(*([row[key] for row in rows] for key in (name, "label", "group")))
            means = "  ".join(f"{label} {mean.value:+.3f}" for label, mean in one.means.items())
            control = sum(row[f"random_{name}"] for row in rows) / len(rows)
            assert one.difference is not None
            ends = f"{one.difference.low:+.3f} to {one.difference.high:+.3f}"
            print(
                f"    layer {layer}: {means}  difference {one.difference.value:+.3f} ({ends})  "
                f"control {control:+.3f}"
            )


def main(count: int = 60) -> None:
    """The two comparisons, the strongest heads, and every range of blocks as a figure."""
    model, prompts = wb.load(), sentences(count)
    for what in ("mlp", "attention"):
        print_layers(model, prompts, what)
    heads = Ablate(how="resample", draws=4)(model, prompts).to_frame()
    strongest = heads.groupby(["layer", "head"])[["effect", "loss_effect", "random_effect"]].mean()
    print("heads, resampled: the strongest by log p(answer)")
    print(strongest.sort_values("effect").head(3).round(3).to_string())
    blocks = Ablate(what="blocks", each="range")(model, prompts)
    run = int(blocks.data["block_tokens"].sum())
    print(f"blocks short-circuited: {run} block-tokens")
    blocks.save("short_circuits.html")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
