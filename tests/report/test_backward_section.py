"""The backward lens in a report: controls beside the claim, and what 16 bit do to it."""

from __future__ import annotations

from pathlib import Path

import polars as pl

import workbench as wb
from lenses import BackwardLens
from workbench.atlas import prompts_path
from workbench.report import report


def test_the_report_says_what_the_shift_proves_and_how_exact_it_is(tmp_path: Path) -> None:
    prompts = wb.PromptSet.read(prompts_path("classics")).subset(range(4))
    model = wb.load("atlas", dtype="bfloat16")
    found = report(model, prompts, [BackwardLens(maps=["ff2"])], tmp_path / "out")
    assert found.failed == 0
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "bfloat16: logits are rounded to so few bits" in page
    assert "That the target comes first in the shift proves nothing" in page
    for line in (
        "random target: rest",
        "twin: rest",
        "Target first at every layer, twin: shift of ff2",
    ):
        assert line in page
    rows = pl.read_parquet(tmp_path / "out" / "shards" / "*" / "backward_lens.parquet")
    keys = ["prompt", "map", "layer", "position"]
    assert rows.select(keys).is_unique().all()
    shares = rows.group_by("prompt", "map", "layer").agg(pl.col("share").sum())["share"]
    assert shares.is_between(0.98, 1.02).all()  # sums of bfloat16's products in float32
    assert (
        rows["shift"].drop_nulls().list.eval(pl.element().struct.field("token")).list.len().min()
        == 5
    )
