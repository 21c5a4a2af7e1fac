"""A top-k SAE while it is trained: parameters, their loss, and latents that went dead.

States are brought to a mean of 0 over tokens and coordinates of variance 1 on average, with the mean and
the size of the first step's; what is saved has them folded in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from probes.latents.architectures import top_k
from workbench.optimisers import optimiser_state, restore_optimiser

__all__ = ["Recipe", "Trained", "directions", "initial"]

AUX = 1 / 32
FINAL = 5  # the rate falls over the last fifth
ADAM = {"betas": (0.9, 0.999), "eps": 6.25e-10}
NAMES = ("W_enc", "b_enc", "W_dec", "b_dec")


@dataclass(frozen=True)
class Recipe:
    """How to train; settings of `SparseAutoencoderFit`."""

    k: int
    steps: int
    rate: float
    dead_after: int


class Trained:
    """Parameters, optimiser, and what was seen.

    Attributes:
        parameters: W_enc [d, m], b_enc [m], W_dec [m, d] with rows of norm 1, b_dec [d].
        unused: [m] tokens since a latent was last active.
        moments: [d + 1, d] of the tokens trained on: their sum, and their products.
        tokens: how many they are.
        mean, size: [d] and scalar: a state is mean + size times what is trained on.
        done: steps.
    """

    def __init__(self, recipe: Recipe, held: Mapping[str, Tensor], device: torch.device) -> None:
        self.recipe = recipe
        self.parameters = {name: held[name].to(device).requires_grad_() for name in NAMES}
        self.unused, self.moments = held["unused"].to(device), held["moments"].to(device)
        self.mean, self.size = held["mean"].to(device), float(held["size"])
        self.done, self.tokens = int(held["steps"]), int(held["tokens"])
        self.optimiser = torch.optim.Adam(list(self.parameters.values()), lr=recipe.rate, **ADAM)  # type: ignore[arg-type]
        restore_optimiser(self.optimiser, self.parameters, held)

    def kept(self) -> dict[str, Tensor]:
        """All of it, as tensors by name."""
        numbers = {"steps": self.done, "tokens": self.tokens, "size": self.size}
        return {
            **self.parameters,
            **optimiser_state(self.optimiser, self.parameters),
            **{name: torch.tensor(value, dtype=torch.float64) for name, value in numbers.items()},
            "unused": self.unused,
            "moments": self.moments,
            "mean": self.mean,
        }

    def add(self, states: Tensor, weight: float) -> None:
        """Add the gradient of weight x the sum over states [N, d] of their loss."""
        x = (states - self.mean) / self.size
        self.moments += torch.cat([x.double().sum(0)[None], x.double().T @ x.double()])
        self.tokens += len(x)
        made, active, aux = self._forward(x)
        loss = (x - made).square().sum() / x.shape[1] + AUX * aux * len(x)
        (loss * weight).backward()  # type: ignore[no-untyped-call]
        self.unused = torch.where(active, 0, self.unused + len(x))

    def _forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What is made of x, which latents are active, and the loss of dead ones."""
        part = self.parameters
        p = torch.addmm(part["b_enc"], x - part["b_dec"], part["W_enc"])
        latents = top_k(p, self.recipe.k)
        made = torch.addmm(part["b_dec"], latents, part["W_dec"])
        return made, (latents > 0).any(0), self._aux(p, (x - made).detach())

    def _aux(self, p: Tensor, error: Tensor) -> Tensor:
        """AuxK: how much of the error the best d / 2 of the dead latents would leave, as a share."""
        dead = (self.unused > self.recipe.dead_after).nonzero()[:, 0]
        most = min(error.shape[1] // 2, len(dead))
        if most == 0:
            return error.new_zeros(())
        made = top_k(p[:, dead], most) @ self.parameters["W_dec"][dead]
        return (error - made).square().sum() / error.square().sum().clamp_min(1e-12)

    def step(self) -> None:
        """One step of Adam along the spheres of the decoder's rows."""
        rows = self.parameters["W_dec"]
        assert rows.grad is not None
        with torch.no_grad():
            rows.grad -= (rows.grad * rows).sum(1, keepdim=True) * rows
        left = 1 - self.done / self.recipe.steps
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.rate * min(1.0, FINAL * left)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        with torch.no_grad():
            rows /= rows.norm(dim=1, keepdim=True)
        self.done += 1

    def folded(self) -> dict[str, Tensor]:
        """The tensors for states as they are; the decoder's rows still have norm 1.

        relu and the choice of the k greatest do not see a common factor, which latents take over.
        """
        part = {name: one.detach() for name, one in self.parameters.items()}
        return {
            "W_enc": part["W_enc"],
            "b_enc": part["b_enc"] * self.size,
            "W_dec": part["W_dec"],
            "b_dec": self.mean + part["b_dec"] * self.size,
        }

    def spectrum(self) -> tuple[Tensor, Tensor]:
        """[d] mean, and [d, d] principal directions by falling variance, of what was trained on."""
        mean = self.moments[0] / self.tokens
        covariance = self.moments[1:] / self.tokens - mean[:, None] * mean
        directions = torch.linalg.eigh(covariance).eigenvectors.flip(1)
        return self.mean + self.size * mean, directions


def initial(states: Tensor, d_sae: int, seed: int) -> dict[str, Tensor]:
    """What training begins with: random unit directions, the encoder the decoder's transpose.

    Args:
        states: [N, d] of the first step, for their mean and size.
    """
    mean = states.mean(0)
    width, size = states.shape[1], (states - mean).square().mean().sqrt()
    rows = directions(d_sae, width, seed).to(states)
    zero = torch.zeros((), dtype=torch.float64)
    return {
        "W_enc": rows.T.clone(memory_format=torch.contiguous_format),  # one row's is no copy else
        "b_enc": rows.new_zeros(d_sae),
        "W_dec": rows,
        "b_dec": rows.new_zeros(width),
        "unused": torch.zeros(d_sae, dtype=torch.int64),
        "moments": torch.zeros(width + 1, width, dtype=torch.float64),
        "mean": mean,
        "size": size.double(),
        "steps": zero,
        "tokens": zero,
    }


def directions(count: int, width: int, seed: int) -> Tensor:
    """[count, width] random directions of norm 1, equal on every device."""
    drawn = torch.randn(count, width, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(drawn, dim=1)
