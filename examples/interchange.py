"""Which part of a state carries a fact? Put it in from another subject's prompt, beside the controls.

Run from the project's root:  python -m examples.interchange
"""

import workbench as wb
from probes import Interchange
from workbench.atlas import prompts_path

RUNS = (
    Interchange(subspace="means", layers=3, k=32, pairs=128, draws=2),
    Interchange(subspace="rotation", layers=3, k=32, pairs=128, draws=2, epochs=4),
)


def main() -> None:
    """Print how often the other subject's answer wins, on subjects that no subspace came from."""
    model = wb.load()
    facts = wb.PromptSet.read(prompts_path("facts"))
    for interchange in RUNS:
        result = interchange(model, facts)
        print(f"{interchange.subspace}: {int(result.data['n'])} held-out pairs")
        for row in result.rows():
            print(
                f"  layer {row['layer']} {row['control']:<15}{row['accuracy']:4.0%} "
                f"({row['low']:.0%} to {row['high']:.0%})"
            )
    print(
        "In Atlas the whole state at the subject carries the answer up to layer 4. 32 of its 128\n"
        "dimensions carry most of it, where as large a change in a random subspace does not. With\n"
        "random weights about half of the pairs come out right whether or not anything is changed."
    )


if __name__ == "__main__":
    main()
