"""Tiny models on the transformer-lens engine, and what transformer-lens gives of each family."""

from functools import cache

import torch

import workbench as wb
from tests.models.test_engine import close
from tests.tiny import EVERY, has, hf_model, tokenizer_of
from workbench.models.bridge.engine import BridgeModel

UNWRAPPED = {
    "falcon_new": "cannot wrap FalconForCausalLM: split_with_sizes",
    "falcon_alibi": "through transformer-lens its logits differ by",
    "phi": "cannot wrap PhiForCausalLM: .* adapter did not declare 'q_norm'",
}
"""Families that the engine refuses, and what it says."""

BRIDGED = [family for family in EVERY if family not in UNWRAPPED]

OWN_ATTENTION = ("gpt_neo", "gptj", "gpt_neox", "gpt_neox_sequential", "falcon", "phi3", "bloom")
SILENT = {"q": (*OWN_ATTENTION, "opt", "opt_projected"), "k": OWN_ATTENTION}
"""Families of which the engine refuses a site that their attention has."""

READ_ONLY = ("gpt_neo", "gptj", "opt", "opt_projected", "bert")
"""Families whose pattern transformer-lens shows after attention has used it."""

INNER = ["resid_pre", "resid_mid", "attn_out", "mlp_out", "mlp_act", "z"]


def gives(family: str, site: str) -> bool:
    """Whether the engine reads `site` of `family`."""
    if site in ("v", "pattern"):
        return True
    if site in ("q", "k"):
        return family not in SILENT[site]
    return has(family, site)


def shared(family: str, sites: list[str]) -> list[str]:
    """Those of `sites` that this engine and torch both have."""
    return [site for site in sites if has(family, site) and gives(family, site)]


@cache
def bridge(family: str, dtype: torch.dtype = torch.float64) -> BridgeModel:
    """The model on this engine, shared between tests: a call must leave nothing behind on it."""
    found = wb.load(hf_model(family, dtype), tokenizer_of(family), engine="transformer_lens")
    assert isinstance(found, BridgeModel)
    return found


def assert_equal(family: str, found: wb.Captures, expected: wb.Captures) -> None:
    """The same sites with the same numbers, up to rounding."""
    assert list(found.values) == list(expected.values)
    for site, value in expected.values.items():
        torch.testing.assert_close(
            found.values[site], value, **close(family), msg=f"{site}: {{}}".format
        )
