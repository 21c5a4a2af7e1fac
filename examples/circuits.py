"""What would patching do, by a gradient; what does it do; and which edges carry a fact of the bundled model?

Run from the project's root:  python -m examples.circuits
"""

import workbench as wb
from probes import AttributionPatch, EdgeAttribution

SITES = {"resid_post": "state", "mlp_out": "MLP", "attn_out": "attention", "z": "heads"}
PAIR = wb.Prompt(
    "The capital of France is", target=" Paris", foil=" Rome", corrupted="The capital of Italy is"
)


def grids(model: wb.Model) -> None:
    """How well one gradient ranks the cells, beside patching every one of them."""
    for steps in (0, 5):
        data = AttributionPatch(sites=tuple(SITES), steps=steps, exact=True)(model, PAIR).data
        ranks = dict(zip(data["site"].values, data["rank_correlation"].values[:, 0], strict=True))
        ranks["z"] = data["head_rank_correlation"].values[0]
        said = ", ".join(f"{SITES[site]} {rank:.2f}" for site, rank in ranks.items())
        print(f"rank correlation with exact effects, {steps} steps: {said}")


def circuit(model: wb.Model) -> None:
    """The largest edges, and how much of the effect circuits of them keep, beside random ones."""
    found = EdgeAttribution(steps=5)(model, PAIR)
    edges = [row for row in found.rows() if row["sender"]]
    for edge in edges[:5]:
        print(
            f"edge {edge['sender']} → {edge['receiver']}: {edge['score']:+.2f} logit, approximate"
        )
    data = found.data.isel(place=0)
    for size, kept, random in zip(
        data["edges"].values,
        data["faithfulness"].values,
        data["random_faithfulness"].values,
        strict=True,
    ):
        print(f"{size:5} of {len(edges)} edges keep {kept:+.2f}, at random {random.mean():+.2f}")


def main() -> None:
    """Both."""
    model = wb.load()
    grids(model)
    circuit(model)


if __name__ == "__main__":
    main()
