"""Is a layer a step of a flow, and does the order of its branches matter? The bundled model beside its twin.

Run from the project's root:  python -m examples.layer_flow
"""

import workbench as wb
from probes import LayerFlow
from workbench.atlas import prompts_path

PARTS = ("ode", "bracket", "orders")
NAMES = {"model": "Atlas", "random": "twin"}


def main(count: int = 15) -> None:
    """Print medians over tokens, layer by layer, and what other orders do to the loss."""
    prompts = list(wb.PromptSet.read(prompts_path("classics")))[:count]
    data = LayerFlow(parts=PARTS)(wb.load(), prompts).data
    tokens = data.median("place")
    for view, who in NAMES.items():
        for layer in tokens["layer"].values.tolist():
            one = tokens.sel(view=view, layer=layer)
            print(
                f"{who} layer {layer}: step {float(one['step']):6.2f}  turn {float(one['turn']):+.2f}  "
                f"from its flow {float(one['ode_defect'].sel(substeps=1)):.2f}  "
                f"bracket {float(one['bracket']):5.2f}  swap {float(one['swap']):.2f}"
            )
    losses = data.groupby("prompt").first()  # of whole prompts: the same at all their tokens
    mean = losses.mean("prompt").sel(view="model")
    print(f"loss {float(mean['loss']):.2f} nat per token")
    for order in mean["order"].values.tolist():
        one = mean.sel(order=order)
        first, above = one["layer_loss_change"].sel(layer=1), one["layer_loss_change"].sel(layer=4)
        print(
            f"{order}: every block {float(one['loss_change']):+.2f}, block 1 {float(first):+.2f} "
            f"(random push {float(one['random_change'].sel(layer=1)):+.2f}), block 4 {float(above):+.3f}"
        )


if __name__ == "__main__":
    main()
