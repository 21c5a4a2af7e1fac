"""Which neurons of Atlas know what a prompt is about? One neuron for one feature, eight for another.

Run it: python examples/sparse_probing.py
"""

from collections.abc import Iterable
from typing import Any

import workbench as wb
from probes import SparseProbe
from probes.sparse.makers import atlas_facts

FEATURES = ("relation=language", "entity=landmark", "continent=Asia")


def best(rows: Iterable[dict[str, Any]], feature: str, k: int) -> dict[str, Any]:
    """The layer that validation prompts prefer."""
    own = [row for row in rows if row["feature"] == feature and row["k"] == k]
    return max(own, key=lambda row: row["validation_f1"])


def main() -> None:
    model = wb.load()
    found = SparseProbe(k=[1, 8], features=FEATURES)(model, atlas_facts())
    rows = found.rows()
    print(f"{'feature':18} k layer   F1 (95% interval)      p  control  all positive  units")
    for feature in FEATURES:
        for k in (1, 8):
            row = best(rows, feature, k)
            print(
                f"{feature:18} {k} {row['layer']:5} {row['f1']:.2f} ({row['f1_low']:.2f} to "
                f"{row['f1_high']:.2f}) {row['p']:8.3f} {row['control_f1']:8.2f} "
                f"{row['all_positive']:13.2f}  {row['units']}"
            )
    found.plot().write_html("sparse_probing.html")
    print("figure: sparse_probing.html")


if __name__ == "__main__":
    main()
