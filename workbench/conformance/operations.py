"""What a hooked model can do, each as a comparison with Hugging Face or with a law."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.conformance.answers import Site, loss
from workbench.conformance.case import Case, shaped
from workbench.conformance.cells import Finding, worst
from workbench.conformance.oracle import stack_of
from workbench.conformance.tolerance import distance
from workbench.models.batch import Batch, Padding
from workbench.models.edits import Edit

__all__ = ["OPERATIONS", "Operation"]

VARIANTS = 24
DRAWS = ((0, 1.0), (1, 1.0), (2, 4.0), (3, 16.0))  # seed and size of noise
BOTH: tuple[Padding, ...] = ("left", "right")


@dataclass(frozen=True)
class Operation:
    """One comparison.

    Attributes:
        name: its name in the table.
        measure: (case, site, padding) -> the difference and what rounding allows.
        at: whether it is measured at a site, one cell each.
        paddings: on which sides prompts are padded; empty where none are.
        meaning: one line for the table's head.
    """

    name: str
    measure: Callable[[Case, str, Padding], Finding]
    at: Callable[[str], bool]
    paddings: Sequence[Padding]
    meaning: str


def capture(case: Case, site: str, padding: Padding) -> Finding:
    """A batch's values at every layer against those of each prompt alone in Hugging Face."""
    found = case.model.capture(case.batch(padding), [site])
    return worst(
        [case.compared(mine, case.answers.values(at)) for at, mine in found.values.items()]
    )


def same(case: Case, site: str, padding: Padding) -> Finding:
    """An edit to the value that is there changes no logit."""
    batch, at = case.batch(padding), case.at(site)
    values = case.model.capture(batch, [at])[at]
    edited = case.model.intervene(batch, [Edit.set(at, values)])[case.last]
    return case.alike(edited, case.logits(batch))


def edit(case: Case, site: str, padding: Padding) -> Finding:
    """Noise added by an edit gives the logits that Hugging Face gives with the noise added.

    In bfloat16 rounding can turn a choice of experts, or hide a small effect. Then other noise is
    tried: a right edit agrees with some, a wrong one with none.
    """
    batch, at = case.batch(padding), case.at(site)
    like = case.model.capture(batch, [at])[at]
    tried = [_noisy(case, batch, at, like, *DRAWS[0])]
    tried += [_noisy(case, batch, at, like, *draw) for draw in DRAWS[1:] if not tried[0].holds]
    return min(tried, key=lambda finding: finding.share)


def _noisy(case: Case, batch: Batch, at: Site, like: Tensor, seed: int, size: float) -> Finding:
    """One edit, which would err by its whole effect if it were not made: half is the most allowed.

    Some edits rightly have none: attention to a single key is the same for any query.
    """
    extra = shaped(case.answers.noise(at, seed, size), like)
    edited = case.model.intervene(batch, [Edit.add(at, extra)])[case.last]
    answer = case.answers.edited(at, seed, size)
    effect = distance(answer.joined, case.answers.values(case.last).joined)
    finding = case.compared(edited, answer)
    return Finding(finding.error, min(finding.tolerance, effect / 2 if effect else torch.inf))


def grad(case: Case, site: str, padding: Padding) -> Finding:
    """Gradients of a loss at the last position against plain autograd on Hugging Face."""
    at = case.at(site)
    found = case.model.grad(case.batch(padding), lambda logits, _: loss(logits), [at])
    return case.compared(found[at], case.answers.gradient(at))


def identity(case: Case, site: str, padding: Padding) -> Finding:
    """resid_pre + attn_out + mlp_out = resid_post, with cross_attn_out where there is one."""
    prefix, _ = stack_of(site)
    branches = [branch.site for branch in case.answers.oracle.stacks[prefix].blocks[0].branches]
    parts = [prefix + part for part in ("resid_pre", *branches)]
    found = case.model.capture(case.batch(padding), [*parts, site])
    sums = torch.stack([found.stack(part).double() for part in parts]).sum(0)
    after = found.stack(site)[1:]
    added = case.answers.tolerance.added
    return worst([added(mine, theirs) for mine, theirs in zip(sums, after, strict=True)])


def restart(case: Case, site: str, padding: Padding) -> Finding:
    """A restart from the states after each block gives the logits of the whole pass."""
    batch = case.batch(padding)
    full = case.model.capture(batch, [site, "logits"])
    empty = full[site, 0].new_zeros(*full.batch.ids.shape, full[site, 0].shape[-1])
    states = [full.places.scatter(empty, value) for value in full.stack(site)]
    tails = [case.model.tail(batch, layer, resid) for layer, resid in enumerate(states)]
    return worst([case.alike(tail[case.last], full[case.last]) for tail in tails])


def readout(case: Case, site: str, padding: Padding) -> Finding:
    """Hugging Face's states after the last block read out as its logits."""
    last = "resid_post", case.model.n_layers
    found = case.model.readout(case.answers.values(last).joined)
    return case.answers.tolerance.one_step(found, case.answers.values(case.last).joined)


def batch(case: Case, site: str, padding: Padding) -> Finding:
    """Each prompt's values are the same in a batch and alone, on the same engine."""
    together = case.model.capture(case.batch(padding), [site])
    alone = [case.model.capture(case.model.batch([p]), [site]) for p in case.answers.prompts]
    return worst(
        [
            case.answers.tolerance.a_pass(
                values, torch.cat([one[at] for one in alone]), case.answers.values(at).moved
            )
            for at, values in together.values.items()
        ]
    )


def stack(case: Case, site: str, padding: Padding) -> Finding:
    """24 variants of one state in one restart give what Hugging Face gives each of them."""
    at, prompt = case.at(site), case.answers.prompts[0]
    state = case.answers.values(at).values[0]
    drawn = torch.randn((VARIANTS, *state.shape), generator=torch.Generator().manual_seed(0))
    extra = drawn.to(state) * state.double().square().mean().sqrt().to(state)
    many = case.model.batch([prompt] * VARIANTS)
    found = case.model.tail(many, at[1], state + extra)[case.last]
    return case.compared(found, case.answers.variants(at, extra))


def _inner(site: str) -> bool:
    return site != "logits"


def _after_blocks(site: str) -> bool:
    return site.endswith("resid_post")


def _last(site: str) -> bool:
    return site in ("resid_post", "logits")


OPERATIONS = (
    Operation("capture", capture, bool, BOTH, "values at every layer = Hugging Face's"),
    Operation("same", same, _inner, BOTH, "an edit to the value that is there changes no logit"),
    Operation("edit", edit, _inner, BOTH, "logits with noise added = Hugging Face's with it added"),
    Operation("grad", grad, _inner, BOTH, "gradients = autograd's on Hugging Face"),
    Operation("identity", identity, _after_blocks, BOTH, "resid_pre + the branches = resid_post"),
    Operation("restart", restart, "resid_post".__eq__, BOTH, "from each layer = the whole pass"),
    Operation("readout", readout, "logits".__eq__, [], "of the last state = Hugging Face's logits"),
    Operation("batch", batch, _last, BOTH, "prompts together = each alone"),
    Operation("stack", stack, "resid_post".__eq__, [], "24 variants in one restart = each alone"),
)
"""Every comparison but the last, which looks at what they leave behind (`leftovers`)."""
