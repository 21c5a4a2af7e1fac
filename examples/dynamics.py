"""Attention as moving particles: the depth crossover, and whether a trained model follows the law.

Run from the project's root:  python -m examples.dynamics [how many prompts; 40 where it is left out]
"""

import sys

import numpy as np
import torch

import workbench as wb
from probes.dynamics.experiments import PhaseDiagram
from probes.dynamics.observables import mean_cosine
from probes.dynamics.overlay import overlay
from workbench.atlas import prompts_path


def curves(model: wb.Engine, prompts: list[wb.Prompt]) -> np.ndarray:
    """[prompts, layers+1] raw mean cosines of the tokens after the first, which is a sink."""
    found = []
    for prompt in prompts:
        states = model.capture(prompt, ["resid_post"])
        layers = range(model.n_layers + 1)
        cosines = [mean_cosine(states["resid_post", layer][1:].float()) for layer in layers]
        found.append(torch.stack(cosines).tolist())
    return np.array(found)


def main(count: int = 40) -> None:
    """Print where simulated tokens meet beside the closed form, then the verdict on Atlas."""
    phase = PhaseDiagram(betas=(0.5, 2.0, 4.0, 6.0), d=2048, seeds=2, time=30.0)()
    phase.save("crossover.html")
    print("depth at which the mean cosine of 32 tokens passes 1/2: simulated, closed form")
    rows = zip(phase.betas, phase.crossings().mean(-1), phase.curves["crossover"], strict=True)
    for beta, simulated, closed in rows:
        print(f"  beta {beta:.1f}: {simulated:6.2f} {closed:6.2f}")

    model = wb.load()
    prompts = list(wb.PromptSet.read(prompts_path("facts")))[:count]
    found = overlay(curves(model, prompts), tokens=10, twin=curves(model.twin(0), prompts))
    print("Atlas by layer:", np.round(found.measured.mean(0), 2).tolist())
    assert found.twin is not None
    print("its untrained twin:", np.round(found.twin.mean(0), 2).tolist())
    print(f"The theory {found.verdict}.")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
