"""How much sharper than uniform is attention, does its entropy grow with the context, and where do the
tokens of a fact go on the way?

Run from the project's root:  python -m examples.attention_entropy
"""

from itertools import islice

import polars as pl

import workbench as wb
from probes import AttentionEntropy, TokenGeometry
from workbench.atlas.corpus import sentences
from workbench.figures import save_figure
from workbench.report.summaries import means

PROMPTS, SENTENCES = 12, 5  # some eighty tokens each
FACT = "The Eiffel Tower is located in the city of"


def texts() -> list[str]:
    """Passages that Atlas was not trained on, of the sentences that it was made of."""
    stream = (one.text for one in sentences(seed=2027))
    return ["\n".join(islice(stream, SENTENCES)) for _ in range(PROMPTS)]


def main() -> None:
    """Print entropy and growth by layer beside their controls, and the cosines of one fact's tokens."""
    model = wb.load()
    found = AttentionEntropy()(model, texts())
    rows = pl.LazyFrame(found.rows())
    print(f"{PROMPTS} prompts; slope of H on ln n (uniform attention: 1, entropy-invariant: 0)")
    twin = means(rows, "growth_twin", ["layer"])["value"]
    share = means(rows, "entropy_share", ["layer"])["value"]
    for i, row in enumerate(means(rows, "growth", ["layer"]).rows(named=True)):
        ends = f"({row['low']:.2f} to {row['high']:.2f})"
        print(
            f"layer {row['layer']}: entropy {share[i]:.0%} of ln n, slope {row['value']:.2f} {ends}, "
            f"untrained twin {twin[i]:.2f}"
        )
    save_figure(found.plot(selected=(2, 0)), "attention_entropy.html")
    fact = TokenGeometry()(model, FACT)
    first = fact.data.isel(place=0)
    for layer in fact.data["layer"].values.tolist():
        here = first.sel(layer=layer)
        raw, centred = (float(here["mean_cosine"].sel(view=v)) for v in ("raw", "centred"))
        other, own = (float(here["mean_cosine_twin"].sel(view=v)) for v in ("raw", "centred"))
        print(
            f"state {layer}: mean cosine raw {raw:.2f}, centred {centred:.2f}; "
            f"untrained twin {other:.2f}, {own:.2f}"
        )
    save_figure(fact.plot(), "token_geometry.html")
    print("figures: attention_entropy.html, token_geometry.html")


if __name__ == "__main__":
    main()
