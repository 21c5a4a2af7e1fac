"""Print the table of ratios, and keep it where asked: `python -m benchmarks --out FILE.json`."""

from __future__ import annotations

import argparse
import json
import os
import platform
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import torch

from benchmarks import logit_lens

PACKAGES = ("torch", "transformers", "transformer-lens")


def main() -> None:
    """Run every benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds of every side")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
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
    for line in logit_lens.run(device, options.rounds):
        lines.append(line)
        goal = (
            ""
            if line.goal is None
            else f"goal <= {line.goal}: {'met' if line.ratio <= line.goal else 'MISSED'}"
        )
        print(f"{line.ratio:7.3f}  {line.what:75} {goal:22} {line.detail}", flush=True)
    if options.out is not None:
        options.out.write_text(
            json.dumps(setting | {"lines": [asdict(line) for line in lines]}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
