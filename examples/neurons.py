"""Look at the neurons that write most in one layer of the bundled model.

Run from the project's root:  python -m examples.neurons
"""

from itertools import groupby
from typing import Any

import workbench as wb
from lenses import NeuronView
from workbench.atlas import prompts_path

LAYER = 5


def main() -> None:
    """Print what each of them promotes, how it is distributed, and its best contexts."""
    facts = wb.PromptSet.read(prompts_path("facts")).subset(range(300))
    found = NeuronView(layer=LAYER, top=3, top_k=6, contexts=3, window=6)(wb.load(), facts)
    for neuron, rows in groupby(found.rows(), key=lambda row: row["unit"]):
        page(neuron, list(rows))


def page(neuron: int, rows: list[dict[str, Any]]) -> None:
    """One neuron's page."""
    (summary,) = [row for row in rows if row["kind"] == "summary"]
    print(
        f"layer {LAYER}, neuron {neuron}: {summary['tokens']} tokens, mean {summary['mean']:.2f}, "
        f"above 0 in {summary['positive']:.0%}"
    )
    for end in ("promoted", "suppressed"):
        print(f"  {end:10} {[row['token'] for row in rows if row['end'] == end]}")
    for row in rows:
        if row["kind"] == "context":
            print(f"  {row['activation']:10.2f} at {row['token']!r} of {text(row)!r}")


def text(context: dict[str, Any]) -> str:
    """The tokens of a context as text."""
    return "".join(token for token, _ in context["window"])


if __name__ == "__main__":
    main()
