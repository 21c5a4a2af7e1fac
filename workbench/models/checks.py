"""Load-time self-checks: the sites mean what they say on this very model, or are refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from workbench.errors import ModelError, WorkbenchError
from workbench.models.batch import Batch
from workbench.models.captures import Captures

if TYPE_CHECKING:
    from workbench.models.engine import Engine

__all__ = ["Check", "check"]

PROBE_TOKENS = 8
BRANCHES = ("attn_out", "cross_attn_out", "mlp_out")
CHECKED = ("resid_pre", "resid_mid", "resid_post", *BRANCHES, "logits")


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


def check(model: Engine) -> list[Check]:
    """Run every identity once, on a few tokens, and note the sites that fail in `model.refused`.

    Raises:
        ModelError: the last step or a restart differs from the model's own pass, or the model
            cannot run at all.
    """
    checks = []
    for prefix, stack in model.stacks.items():
        found = list(_identities(stack))
        for result in found:
            _note(model, prefix, result)
        checks += found
    return checks


def _note(model: Engine, prefix: str, result: Check) -> None:
    if result.holds:
        return
    reason = f"{result.identity} fails by {result.error:.2g} (tolerance {result.tolerance:.2g})"
    if result.site is None:
        raise ModelError(f"{model.name}: {reason}: it cannot be read layer by layer")
    model.refused[prefix + result.site] = reason


def _identities(model: Engine) -> Iterator[Check]:
    sites = [site for site in CHECKED if model.anatomy.lack(site) is None]
    caught = _first_pass(model, sites)
    stream = {site: caught.stack(site).double() for site in sites}
    pre, post = stream["resid_pre"], stream["resid_post"]
    yield _check(
        model, "resid_post[l] = resid_pre[l + 1]", "resid_pre", post[:-1], pre, roundings=0
    )
    if "attn_out" in sites:
        yield from _branches(model, stream)
    yield _restart(model, caught)
    if "logits" not in sites:
        return
    logits = stream["logits"][0]
    lens = model.readout(caught["resid_post", model.n_layers]).double()
    # One dot product of d terms rounds in another order when the shapes differ.
    yield _check(
        model, "lens of the last block = the model's logits", None, lens, logits, roundings=64
    )


def _first_pass(model: Engine, sites: list[str]) -> Captures:
    try:
        return model.capture(_probe(model), sites)
    except RuntimeError as error:  # some kernels lack some dtypes
        if isinstance(error, WorkbenchError):
            raise
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"{model.name} cannot run a few tokens in {model.dtype}: {reason}; load it in another dtype, "
            "or call set_experts_implementation('eager') on it where it has experts"
        ) from error


def _restart(model: Engine, caught: Captures) -> Check:
    """Blocks that are passed over leave the later ones what they need."""
    last = ("resid_post", model.n_layers)
    states = caught["resid_post", 1]
    rows = len(caught.batch)
    again = model.tail(caught.batch, 1, states.reshape(rows, -1, states.shape[-1]), [last])
    identity = "a restart after block 1 = the whole pass"
    return _check(model, identity, None, again[last].double(), caught[last].double(), roundings=64)


def _branches(model: Engine, stream: Mapping[str, Tensor]) -> Iterator[Check]:
    """Each branch adds to the stream what its site says."""
    pre, post = stream["resid_pre"], stream["resid_post"][1:]
    if "resid_mid" in stream:
        mid, attn, mlp = (stream[site] for site in ("resid_mid", "attn_out", "mlp_out"))
        yield _check(model, "resid_pre + attn_out = resid_mid", "attn_out", pre + attn, mid)
        yield _check(model, "resid_mid + mlp_out = resid_post", "mlp_out", mid + mlp, post)
        return
    branches = [site for site in BRANCHES if site in stream]
    total = pre + torch.stack([stream[site] for site in branches]).sum(dim=0)
    for site in branches:
        identity = f"resid_pre + {' + '.join(branches)} = resid_post"
        yield _check(model, identity, site, total, post)


def _check(
    model: Engine,
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


def _probe(model: Engine) -> Batch:
    """A few ordinary tokens, spread over the vocabulary."""
    ids = torch.linspace(1, model.vocab_size - 1, PROBE_TOKENS, dtype=torch.float64).long()
    ids = ids.to(model.device)[None]
    from workbench.models.tokens import EncodedPrompt
    from workbench.prompts import Prompt

    encoded = EncodedPrompt(Prompt("probe"), tuple(ids[0].tolist()), (), None, None)
    return Batch.collate([encoded], device=model.device)
