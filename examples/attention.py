"""Which of the bundled model's heads copy what followed a token before, and which tokens of a fact
does its answer come from?

Run from the project's root:  python -m examples.attention
"""

import polars as pl

import workbench as wb
from lenses import Attention, InputAttribution

PROMPTS = "workbench/atlas/prompts/induction.jsonl"
FACT = wb.Prompt("The Eiffel Tower is located in the city of", target=" Paris", foil=" Rome")


def main() -> None:
    """Print the heads with the highest scores beside chance, and one fact's input attribution."""
    model = wb.load()
    rows = Attention()(model, wb.PromptSet.read(PROMPTS)).rows()
    section = Attention.section(pl.LazyFrame(rows))
    for headline in section.headlines:
        ends = f"{headline.low:.3f} to {headline.high:.3f}"
        print(f"{headline.label}: {headline.value:.3f} ({ends}, {headline.n} prompts)")
    lens = InputAttribution(methods=["alti_rollout", "integrated_gradients"])
    found = lens(model, FACT)
    print("token      ALTI (share)  integrated gradients (logits, Paris - Rome)")
    last = found.data.isel(place=0, layer=-1)
    for row in found.rows():
        if row["method"] == "integrated_gradients":
            share = float(last.alti_rollout[row["key"]])
            print(f"{row['key_token']!r:12} {share:10.2f} {row['weight']:12.2f}")
    print(f"off completeness by {float(last.integrated_gradients_residual):.1e} logits")


if __name__ == "__main__":
    main()
