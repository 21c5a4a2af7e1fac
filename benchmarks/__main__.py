"""Print the table of figures, and keep it where asked: `python -m benchmarks --out FILE.json`."""

from __future__ import annotations

import argparse
import json
import os
import platform
from dataclasses import asdict
from importlib.metadata import version
from itertools import chain
from pathlib import Path

import torch

from benchmarks import (
    attribution,
    backward_lens,
    causal_trace,
    dynamics,
    imports,
    input_attribution,
    logit_lens,
    page,
    particles,
    sparse_probe,
    tuned,
)

PARTS = {
    "attribution": attribution.run,
    "backward_lens": backward_lens.run,
    "causal_trace": causal_trace.run,
    "dynamics": dynamics.run,
    "imports": imports.run,
    "input_attribution": input_attribution.run,
    "logit_lens": logit_lens.run,
    "page": page.run,
    "particles": particles.run,
    "sparse_probe": sparse_probe.run,
    "tuned": tuned.run,
}
PACKAGES = ("torch", "transformers", "transformer-lens", "dash", "plotly")


def main() -> None:
    """Run every benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds of every side")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts to run"
    )
    parser.add_argument("--out", type=Path, help="also write the table there, as JSON")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    setting = {
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else platform.machine(),
        "cores": os.cpu_count(),
        "threads": options.threads,
        "rounds": options.rounds,
        "load": round(os.getloadavg()[0], 2),
        "versions": {name: version(name) for name in PACKAGES},
    }
    print(json.dumps(setting))
    lines = []
    for line in chain(*(PARTS[part](device, options.rounds) for part in options.only)):
        lines.append(line)
        print(line, flush=True)
    if options.out is not None:
        options.out.write_text(
            json.dumps(setting | {"lines": [asdict(line) for line in lines]}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
