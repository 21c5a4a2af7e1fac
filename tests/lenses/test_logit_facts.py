"""What a logit-lens result says of one cell."""

from __future__ import annotations

import math

import pytest

import workbench as wb
from lenses import LogitLens

TEXT = "The Eiffel Tower is located in the city of"


def facts(
    layer: int, *, target: str | None, foil: str | None, site: str = "resid_post"
) -> dict[str, str]:
    prompt = wb.Prompt(TEXT, target=target, foil=foil)
    lens = LogitLens(top_k=1, sites=("resid_post", "mlp_out"))
    return dict(lens.facts(lens(wb.load(), prompt).data, layer=layer, position=11, site=site))


def test_it_says_what_the_result_holds() -> None:
    prompt = wb.Prompt(TEXT, target=" Paris", foil=" Rome")
    data = LogitLens(top_k=1)(wb.load(), prompt).data
    cell = data.isel(site=0, place=11).sel(layer=6)
    said = facts(6, target=" Paris", foil=" Rome")
    assert said["target ·Paris"] == f"rank 1, p {math.exp(cell['target_logprob']):.3g}"
    assert said["foil ·Rome"].startswith(f"rank {int(cell['foil_rank']):,}, p ")
    assert said["entropy"] == f"{float(cell['entropy']):.3f} nat"
    assert said["top token settles at"] == f"layer {int(cell['settling_layer'])}"
    assert said["norm"] == f"{float(cell['norm']):.2f}"


def test_a_foil_that_is_the_target_is_said_once() -> None:
    said = facts(6, target=" Paris", foil=" Paris")
    assert [name for name in said if "Paris" in name] == ["target and foil ·Paris"]


def test_without_a_target_nothing_is_said_of_one() -> None:
    assert not [name for name in facts(6, target=None, foil=None) if "target" in name]


def test_what_does_not_exist_is_left_out() -> None:
    branch = facts(6, target=" Paris", foil=None, site="mlp_out")
    assert "entropy" not in branch
    assert "norm" in branch
    assert facts(0, target=" Paris", foil=None, site="mlp_out").keys() <= {"target at its best"}


def test_an_unknown_layer_is_named() -> None:
    with pytest.raises(wb.ResultError, match="no layer 7"):
        facts(7, target=None, foil=None)
