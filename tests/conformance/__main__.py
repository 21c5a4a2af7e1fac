"""All engines, families and dtypes: `python -m tests.conformance`, or `make conformance`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch
from transformers.utils import logging

from tests.conformance.document import document
from tests.conformance.suite import DTYPES, family_cells
from tests.tiny import CONFIGS
from workbench.conformance.table import summary
from workbench.models.engines import ENGINES


def main() -> None:
    """Run the suite, print its table, write its rows; exit code 1 where a cell fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engines", nargs="+", choices=list(ENGINES), default=list(ENGINES))
    parser.add_argument("--families", nargs="+", choices=list(CONFIGS), default=list(CONFIGS))
    parser.add_argument("--dtypes", nargs="+", choices=list(DTYPES), default=list(DTYPES))
    parser.add_argument("--json", type=Path, help="write every cell there")
    parser.add_argument("--markdown", type=Path, help="write the tables there too")
    options = parser.parse_args()
    logging.set_verbosity_error()
    torch.set_num_threads(1)
    cells = []
    for family in options.families:
        for dtype in options.dtypes:
            found = list(family_cells(family, options.engines, dtype))
            cells += found
            sys.stderr.write(f"{family}, {dtype}: {summary(found)}\n")
    text = document(cells)
    sys.stdout.write(text + "\n")
    if options.markdown is not None:
        options.markdown.write_text(text + "\n")
    if options.json is not None:
        rows = "\n".join(json.dumps(cell.row(), allow_nan=False) for cell in cells)
        options.json.write_text(rows + "\n")
    sys.exit(any(cell.verdict == "fails" for cell in cells))


if __name__ == "__main__":
    main()
