"""Load-time self-checks: the sites mean what they say on this very model, or are refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from workbench.errors import ModelError
from workbench.models.batch import Batch

if TYPE_CHECKING:
    from workbench.models.torch_engine import TorchModel

__all__ = ["Check", "check"]

PROBE_TOKENS = 8


@dataclass(frozen=True)
class Check:
    """One identity, its largest error on the probe batch and the error that rounding allows.

    Attributes:
        identity: what must hold.
        site: the site that is refused where it does not; None where the whole model is.
        error, tolerance: largest absolute difference, in the units of the residual stream (or of
            the logits).
    """

    identity: str
    site: str | None
    error: float
    tolerance: float

    @property
    def holds(self) -> bool:
        """Whether the identity holds (an error that is not a number does not)."""
        return self.error <= self.tolerance


def check(model: TorchModel) -> list[Check]:
    """Run every identity once, on a few tokens, and note the sites that fail in `model.refused`.

    Raises:
        ModelError: the lens of the last block differs from the model's own logits.
    """
    checks = list(_identities(model))
    for result in checks:
        if result.holds:
            continue
        reason = f"{result.identity} fails by {result.error:.2g} (tolerance {result.tolerance:.2g})"
        if result.site is None:
            raise ModelError(f"{model.name}: {reason}: its layers cannot be read as logits")
        model.refused[result.site] = reason
    return checks


def _identities(model: TorchModel) -> Iterator[Check]:
    sites = ["resid_pre", "resid_post", "attn_out", "mlp_out", "logits"]
    sites += [] if model.anatomy.parallel else ["resid_mid"]
    caught = model.capture(_probe(model), sites)
    pre, post, attn, mlp = (
        caught.stack(s).double() for s in ("resid_pre", "resid_post", "attn_out", "mlp_out")
    )
    yield _check(
        model, "resid_post[l] = resid_pre[l + 1]", "resid_pre", post[:-1], pre, roundings=0
    )
    if model.anatomy.parallel:
        yield _check(
            model,
            "resid_pre + attn_out + mlp_out = resid_post",
            "attn_out",
            pre + attn + mlp,
            post[1:],
        )
        yield _check(
            model,
            "resid_pre + attn_out + mlp_out = resid_post",
            "mlp_out",
            pre + attn + mlp,
            post[1:],
        )
    else:
        mid = caught.stack("resid_mid").double()
        yield _check(model, "resid_pre + attn_out = resid_mid", "attn_out", pre + attn, mid)
        yield _check(model, "resid_mid + mlp_out = resid_post", "mlp_out", mid + mlp, post[1:])
    logits = caught["logits", model.n_layers].double()
    lens = model.readout(caught["resid_post", model.n_layers]).double()
    # One dot product of d terms rounds in another order when the shapes differ.
    yield _check(
        model, "lens of the last block = the model's logits", None, lens, logits, roundings=64
    )


def _check(
    model: TorchModel,
    identity: str,
    site: str | None,
    left: Tensor,
    right: Tensor,
    roundings: int = 4,
) -> Check:
    """`roundings`: how many roundings, at the size of the largest number, separate the sides."""
    error = float((left - right).abs().max())
    scale = float(torch.maximum(left.abs(), right.abs()).max())
    return Check(identity, site, error, roundings * torch.finfo(model.dtype).eps * scale)


def _probe(model: TorchModel) -> Batch:
    """A few ordinary tokens, spread over the vocabulary."""
    ids = torch.linspace(1, model.vocab_size - 1, PROBE_TOKENS, dtype=torch.float64).long()
    ids = ids.to(model.device)[None]
    from workbench.models.tokens import EncodedPrompt
    from workbench.prompts import Prompt

    encoded = EncodedPrompt(Prompt("probe"), tuple(ids[0].tolist()), (), None, None)
    return Batch.collate([encoded], device=model.device)
