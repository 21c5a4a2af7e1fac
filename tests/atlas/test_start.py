import torch

from workbench.atlas.recipe import RECIPES
from workbench.atlas.train import new_model


def test_atlas_starts_with_an_induction_circuit_and_the_bag_does_not() -> None:
    torch.manual_seed(0)
    once = torch.stack([1 + torch.randperm(2175)[:24] for _ in range(8)])
    queries = torch.arange(24, 48)
    for name, low, high in (("atlas", 0.7, 1.0), ("atlas-bag", 0.0, 0.1)):
        model = new_model(RECIPES[name], 2176)
        model.set_attn_implementation("eager")
        with torch.no_grad():
            first, second = model(once.repeat(1, 2), output_attentions=True).attentions[:2]
        previous = first[:, 0, queries, queries - 1].mean()
        induction = second[:, 0, queries, queries - 23].mean()
        assert low <= float(previous) <= high
        assert low <= float(induction) <= high
