"""Which heads of the bundled model tell who gets the flower, and along which paths?

Run from the project's root:  python -m examples.patching
"""

from dataclasses import replace

import workbench as wb
from probes import Patch, PathPatch
from workbench.atlas import prompts_path

PROMPTS = 24


def told_the_other_way(prompt: wb.Prompt) -> wb.Prompt:
    """The same sentence with the other person as the giver: "... Laura gave" -> "... Ellen gave"."""
    before, giver, behind = prompt.text.rpartition(str(prompt.foil))
    assert giver
    return replace(prompt, corrupted=f"{before}{prompt.target}{behind}")


def main() -> None:
    """Print the heads that carry the difference, their direct effect, and who feeds the largest."""
    model = wb.load()
    known = wb.PromptSet.read(prompts_path("indirect_object"))
    prompts = [told_the_other_way(prompt) for prompt in known[:PROMPTS]]
    found = Patch("z", scope="together", direction="noising")(model, prompts)
    print(f"total effect {found.data['total'].mean():+.1f} logit")
    for (layer, head), effect in largest(found):
        print(f"layer {layer} head {head}: {effect:+.1f} when it is as in the other run")

    direct = PathPatch("z", mlps="frozen")(model, prompts)
    mover, _ = largest(direct)[0]
    for (layer, head), effect in largest(direct):
        print(f"layer {layer} head {head}: {effect:+.1f} of it straight to the logits")
    for name in "qkv":
        path = PathPatch("z", receivers=[f"{name}{mover[0]}.{mover[1]}"])(model, prompts)
        (layer, head), effect = largest(path)[0]
        print(
            f"{name} of layer {mover[0]} head {mover[1]}: most from layer {layer} head {head}, {effect:+.1f}"
        )
    print(direct.cite())


def largest(found: wb.Result, count: int = 4) -> list[tuple[tuple[int, int], float]]:
    """(layer, head) and mean effect of the heads with the largest mean effects."""
    means = found.data["head_effect"].isel(head_site=0).mean("place")
    cells = [
        ((layer, head), float(means.sel(layer=layer, head=head)))
        for layer in means["layer"].values.tolist()
        for head in means["head"].values.tolist()
    ]
    return sorted(cells, key=lambda cell: -abs(cell[1]))[:count]


if __name__ == "__main__":
    main()
