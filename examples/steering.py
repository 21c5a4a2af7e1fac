"""From a probe to what it causes: steer Atlas to answers of another kind, and take a probe's neurons out.

Run it: python examples/steering.py
"""

import workbench as wb
from probes import SparseProbe, Superposition
from probes.sparse.makers import atlas_facts
from probes.steering.ablation_panels import effects
from probes.steering.panels import means

FEATURE = "relation=language"
KINDS = ("language", "capital", "currency", "continent")
LAYER = 4
NAMES = {"in": "in class", "out": "out of class"}


def halves() -> tuple[list[wb.Prompt], list[wb.Prompt]]:
    """Questions about countries: one half of the countries for the probes, the other to try them on."""
    every = [p for p in atlas_facts() if any(p.labels[f"relation={kind}"] for kind in KINDS)]
    seen = set(sorted({str(p.group) for p in every})[::2])
    return [p for p in every if p.group in seen], [p for p in every if p.group not in seen]


def steered(model: wb.Model, seen: list[wb.Prompt], new: list[wb.Prompt]) -> None:
    """Add the difference of the class means to questions for something else."""
    probe = SparseProbe(k=8, features=FEATURE, site="resid_post", layers=LAYER, permutations=0)(
        model, seen
    )
    direction = probe.direction(FEATURE, LAYER)
    question = "The capital of France is"
    view = direction.on(model, 4.0)
    print(f"{question}{model.generate(question, 1)[0]}; steered:{view.generate(question, 1)[0]}")
    data = probe.steer(model, new, layers=LAYER, strength=(1.0, 2.0), positions="last").data
    print("prompts that ask for no language, and answer with one (95% interval over countries)")
    print(f"not steered  {100 * float(means(data, 'clean_top_in', 0)[0]):5.1f}%")
    for at, strength in enumerate(data["strength"].values):
        for name, called in (("top_in", "steered"), ("random_top_in", "random direction")):
            value, low, high = (100 * end[0, at] for end in means(data, name, 0))
            print(f"strength {strength:g}: {called} {value:.1f}% ({low:.1f} to {high:.1f})")


def ablated(model: wb.Model, seen: list[wb.Prompt], new: list[wb.Prompt]) -> None:
    """Set the best neuron, and the best eight, to 0."""
    probe = SparseProbe(k=(1, 8), features=FEATURE, permutations=0)(model, seen)
    for k in (1, 8):
        layer = probe.best_layer(FEATURE, k)
        data = probe.ablate(model, new, k=k, layers=layer, loss="answer", draws=4).data
        for which in ("in", "out"):
            found = {name: ends[0][0] for name, ends in effects(data, which).items()}
            _, low, high = (end[0] for end in effects(data, which)["difference"])
            print(
                f"layer {layer} without the {k} best, loss {NAMES[which]}: {found['effect']:+.4f} nat, "
                f"random ones {found['control']:+.4f}, difference {low:+.4f} to {high:+.4f}"
            )


def main() -> None:
    model = wb.load()
    seen, new = halves()
    steered(model, seen, new)
    ablated(model, seen, new)
    for row in Superposition()(model).rows():
        print(
            f"layer {row['layer']}: median weight norm x bias {row['p50']:+.2f}, biases shuffled "
            f"{row['shuffled_p50']:+.2f}, {100 * row['negative']:.0f}% of biases below 0"
        )


if __name__ == "__main__":
    main()
