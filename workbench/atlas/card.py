"""The figures of the model card as JSON: ``python -m workbench.atlas.card atlas``."""

import argparse
import json
import sys
from pathlib import Path

import torch

from workbench.atlas import model_path
from workbench.atlas.measure import load, table
from workbench.atlas.neurons import probes
from workbench.atlas.trace import trace


def main() -> None:
    """Command line: a bundled model's name or a folder."""
    parser = argparse.ArgumentParser(prog="python -m workbench.atlas.card", description=__doc__)
    parser.add_argument("model", help="a bundled model's name or a folder")
    name = parser.parse_args().model
    torch.set_num_threads(1)
    loaded = load(Path(name) if Path(name).is_dir() else model_path(name))
    figures = table(loaded) | {"trace": trace(loaded), "probes": probes(loaded)}
    sys.stdout.write(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
