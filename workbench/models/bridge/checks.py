"""Load-time checks of a bridge against the same model without it, site by site.

transformer-lens computes the norms and the attention of most families by code of its own. What
differs from the plain model's value on the same weights is refused, with the error.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from workbench.errors import UnsupportedError
from workbench.models.batch import Batch
from workbench.models.captures import Captures
from workbench.models.edits import Edit
from workbench.models.hooks import Attachable, attached
from workbench.models.sites import ATTENTION_SITES, BLOCK_SITES, PRODUCT_SITES, Site
from workbench.models.tokens import EncodedPrompt
from workbench.models.torch_engine import TorchModel
from workbench.prompts import Prompt

if TYPE_CHECKING:
    from workbench.models.bridge.engine import BridgeModel

__all__ = ["check_bridge"]

LENGTHS = (8, 5)  # unequal, so that a row is padded
# Two orders of one computation differ by roundings, which many blocks enlarge. At a site's largest
# number, up to 30 of float32's and 2.5 of bfloat16's were seen in models of up to 32 blocks.
ROUNDINGS = 16
ROUNDINGS_32 = 1024  # of float32's, in which most compute norms, rotary angles and softmaxes


def check_bridge(model: BridgeModel, plain: TorchModel) -> None:
    """Note in `model` the sites that it lacks, gets wrong, or reads and cannot edit.

    Raises:
        UnsupportedError: it fails, or its logits or its stream are not the plain model's.
    """
    batch = _probe(model)
    _require_pass(model, batch)
    model.anatomy.silent |= dict(_silent(model, plain, batch))
    model.anatomy.split |= dict(_split(model, batch))
    both = [
        site
        for site in (*BLOCK_SITES, *ATTENTION_SITES)
        if model.anatomy.lack(site) is None and plain.anatomy.lack(site) is None
    ]
    model.refused |= dict(_differing(model, plain, batch, both))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformer-lens says of some that it drops the edit
        model.read_only |= dict(_unchanged(model, plain, batch, both))
        _check_product(model, batch)


def _require_pass(model: BridgeModel, batch: Batch) -> None:
    try:
        model.capture(batch, ["logits"])
    except Exception as error:  # whatever transformer-lens' code trips over
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UnsupportedError(
            f"{model.name}: a pass through transformer-lens in {model.dtype} fails: {reason}; "
            f"{_advice(model)}"
        ) from error


def _silent(model: BridgeModel, plain: TorchModel, batch: Batch) -> Iterator[tuple[str, str]]:
    """Sites that no forward passes, or that nothing can be held against."""
    for site in ("q", "k"):
        if (reason := plain.anatomy.lack(site)) is not None:
            yield site, reason
    for site in PRODUCT_SITES:
        if not _passes(model, batch, model.anatomy.point(Site(site, 1))):
            yield site, "transformer-lens runs the model's own attention, which passes no such hook"


def _split(model: BridgeModel, batch: Batch) -> Iterator[tuple[str, str]]:
    """Linear maps whose module no forward passes."""
    for name in model.anatomy.family.maps:
        if not _passes(model, batch, model.anatomy.map_point(name, 1, "output")):
            yield name, "transformer-lens computes it by parts"


def _passes(model: BridgeModel, batch: Batch, point: Attachable) -> bool:
    passed: list[Tensor] = []
    with attached([(point, passed.append)]):
        model.capture(batch, [("resid_post", 1)])
    return bool(passed)


def _differing(
    model: BridgeModel, plain: TorchModel, batch: Batch, sites: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """Sites whose value is not the plain model's.

    Raises:
        UnsupportedError: its logits or its stream are not.
    """
    mine, theirs = (m.capture(batch, ["logits", *sites]) for m in (model, plain))
    for site in ("logits", *sites):
        error = _difference(mine.stack(site), theirs.stack(site))
        if error and site in ("logits", "resid_post"):
            raise UnsupportedError(
                f"{model.name}: through transformer-lens its {site} differ by {error}: {_advice(model)}"
            )
        if error:
            yield site, f"transformer-lens' value differs from the model's by {error}"


def _unchanged(
    model: BridgeModel, plain: TorchModel, batch: Batch, sites: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """Sites after whose edit the block does not go on as the plain model's does."""
    for site in sites:
        if site in ("pattern", "v") or site in model.refused:
            continue  # those two are held against z, which is nearer
        edits = [_halving(site)]
        mine, theirs = (m.intervene(batch, edits, [("resid_post", 1)]) for m in (model, plain))
        if error := _difference(mine["resid_post", 1], theirs["resid_post", 1]):
            yield site, f"after an edit its block differs from the model's by {error}"


def _check_product(model: BridgeModel, batch: Batch) -> None:
    """Hold pattern and v against z, their product, as they are and edited."""
    own = [(site, 1) for site in ("pattern", "v", "z")]
    if any(model.anatomy.lack(site) or site in model.refused for site, _ in own):
        return
    caught = model.capture(batch, own)
    if error := _difference(_product(caught), caught["z", 1]):
        reason = f"z differs from the product of pattern and v by {error}"
        model.refused |= {"pattern": reason, "v": reason}
        return
    for site in ("pattern", "v"):
        halved = model.intervene(batch, [_halving(site)], [("z", 1)])
        if error := _difference(halved["z", 1], caught["z", 1] / 2):
            model.read_only[site] = f"after an edit z differs from their product by {error}"


def _halving(site: str) -> Edit:
    return Edit((site, 1), lambda old, _: old / 2)


def _product(caught: Captures) -> Tensor:
    """[N, heads, d_head] pattern times v, prompt by prompt."""
    pattern, v = caught["pattern", 1], caught["v", 1]
    v = v.repeat_interleave(pattern.shape[1] // v.shape[1], dim=1)
    rows = [caught.places.row == row for row in range(len(LENGTHS))]
    products = [torch.einsum("qhk,khd->qhd", pattern[r][..., : len(v[r])], v[r]) for r in rows]
    return torch.cat(products)


def _advice(model: BridgeModel) -> str:
    if model.bridge.list_hooks(including_permanent=False):
        return "load the bridge before hooks hang on it"
    if getattr(model.bridge, "compatibility_mode", False):
        return "give a bridge without compatibility mode, which rewrites the weights"
    return "load it with engine='torch'"


def _difference(mine: Tensor, theirs: Tensor) -> str:
    """How far apart the two are, where roundings do not explain it; empty where they do."""
    roundings = ROUNDINGS_32 * torch.finfo(torch.float32).eps
    relative = max(ROUNDINGS * torch.finfo(mine.dtype).eps, roundings)
    error = float((mine.double() - theirs.double()).abs().max())
    allowed = relative * float(theirs.double().abs().max())
    return "" if error <= allowed else f"{error:.2g} (tolerance {allowed:.2g})"


def _probe(model: BridgeModel) -> Batch:
    """Ordinary tokens, spread over the vocabulary, the shorter row padded on the left."""
    ids = torch.linspace(1, model.vocab_size - 1, max(LENGTHS), dtype=torch.float64).long().tolist()
    rows = [EncodedPrompt(Prompt("probe"), tuple(ids[:n]), (), None, None) for n in LENGTHS]
    return Batch.collate(rows, padding="left", device=model.device)
