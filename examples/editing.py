"""Edit new answers into the bundled model by one forward pass, and see what else moves.

Run from the project's root:  python -m examples.editing [how many facts; 24 where it is left out]
"""

import sys

import polars as pl

import workbench as wb
from lenses import EditEffect, ImprintShift, LogitLens, counterfactuals
from workbench.atlas import prompts_path
from workbench.report.summaries import shares

LAYER = 5
COLUMNS = {"prompt": "success", "paraphrase": "success", "neighbour": "kept"}


def one_edit(model: wb.Model) -> None:
    """Move the Eiffel Tower to Rome, look at it with the logit lens, and leave the model as it was."""
    prompt = wb.Prompt("The Eiffel Tower is located in the city of", target=" Rome")
    lens = LogitLens(positions="last", top_k=1)
    with ImprintShift(LAYER).of(model, prompt).on(model) as edited:
        for name, one in (("before", model), ("edited", edited), ("undone", model)):
            print(f"{name}: {[row['top'][0][0] for row in lens(one, prompt).rows()]}")


def table(model: wb.Model, count: int) -> pl.DataFrame:
    """Print the edit table of some facts, at every layer and for two sizes."""
    facts = counterfactuals(wb.PromptSet.read(prompts_path("facts")), prompts=count)
    found = EditEffect(eta=(0.5, 1.0), neighbours=8)(model, facts)
    rows = pl.DataFrame(found.rows())
    print(f"{len(facts)} facts, 95% intervals; before any edit: {before(rows)}")
    print(f"{'':33}{'prompt':18}{'paraphrase':18}neighbours kept")
    for (eta, layer, method), part in rows.group_by("eta", "layer", "method", maintain_order=True):
        cells = [share(part, kind, column) for kind, column in COLUMNS.items()]
        print(f"eta {eta:<4} layer {layer}  {method:14}{''.join(f'{cell:18}' for cell in cells)}")
    return rows


def share(rows: pl.DataFrame, kind: str, column: str) -> str:
    """A share with Wilson's interval over the prompts, in per cent."""
    of_kind = rows.lazy().filter(pl.col("kind") == kind)
    value, low, high = shares(of_kind, column, ["kind"]).select("value", "low", "high").row(0)
    return f"{100 * value:3.0f} ({100 * low:.0f} to {100 * high:.0f})"


def before(rows: pl.DataFrame) -> str:
    """How often the target ranks first (of neighbours, their own) before any edit."""
    kinds = (f"{kind} {share(rows, kind, 'success_before')}" for kind in COLUMNS)
    return ", ".join(kinds)


def main(count: int = 24) -> None:
    """One edit, then the table."""
    model = wb.load()
    one_edit(model)
    table(model, count)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
