"""Which heads and MLPs of the bundled model write " Paris" rather than " Rome"?

Run from the project's root:  python -m examples.attribution
"""

import workbench as wb
from lenses import DirectAttribution


def main() -> None:
    """Print the embedding's, each MLP's and the largest heads' direct effect, and what they read."""
    model = wb.load()
    prompt = wb.Prompt("The Eiffel Tower is located in the city of", target=" Paris", foil=" Rome")
    found = DirectAttribution(split=("heads", "sources"), top=1, positions="last")(model, prompt)
    place = found.data.isel(place=0)
    print(f"logit of ' Paris' - ' Rome': {place['logit']:+.2f}")
    for layer in range(1, model.n_layers + 1):
        added = place["contribution"].sel(layer=layer)
        attention, mlp = added.sel(component="attn_out"), added.sel(component="mlp_out")
        print(f"layer {layer}: attention {attention:+.2f}, MLP {mlp:+.2f}")
    rows = found.rows()
    heads = sorted((r for r in rows if r["component"] == "head"), key=lambda r: -r["contribution"])
    sources = {(r["layer"], r["head"]): r for r in rows if r["component"] == "source"}
    for head in heads[:4]:
        source = sources[head["layer"], head["head"]]
        print(
            f"layer {head['layer']} head {head['head']} writes {head['contribution']:+.2f}, "
            f"{source['contribution']:+.2f} of it from {source['source_token']!r}"
        )
    print(f"All terms sum to the logit within {abs(place['residual']):.0e}.")
    print(found.cite())


if __name__ == "__main__":
    main()
