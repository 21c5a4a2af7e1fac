"""Where in the layers does the bundled model know where the Eiffel Tower is?

Run from the project's root:  python -m examples.logit_lens
"""

import workbench as wb
from lenses import LogitLens


def main() -> None:
    """Print the top token and the answer's rank after every block, and save the figure."""
    model = wb.load()
    prompt = wb.Prompt("The Eiffel Tower is located in the city of", target=" Paris", foil=" Rome")
    lens = LogitLens(top_k=3)(model, prompt)
    for row in lens.rows():
        if row["position"] == lens.data.position.max():
            top = row["top"][0][0]
            print(f"layer {row['layer']}: top {top!r:14} rank of ' Paris' {row['target_rank']:5}")
    print(lens.cite())


if __name__ == "__main__":
    main()
