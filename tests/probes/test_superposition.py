"""Superposition statistics against the definition, on plain weights; what has none is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import workbench as wb
from app.cli import cli
from probes import Superposition
from probes.superposition.statistics import inputs
from tests.tiny import model
from workbench.report import report


def test_the_folded_weights_give_the_pre_activation_of_the_normed_stream() -> None:
    """w' . x / scale(x) + b' is what ff1(ln_2(x)) is; the norm centres, scales and shifts."""
    hooked = model("gpt2")
    block = hooked.hf.transformer.h[1]
    torch.manual_seed(0)
    x = torch.randn(5, 16, dtype=torch.float64) + 0.7
    with torch.no_grad():
        expected = block.mlp.c_fc(block.ln_2(x))
        gain, offset, weight = block.ln_2.weight, block.ln_2.bias, block.mlp.c_fc.weight
        folded = gain[:, None] * weight
        folded = folded - folded.mean(0)
        bias = block.mlp.c_fc.bias + offset @ weight
        scale = (x.var(-1, correction=0) + block.ln_2.eps).sqrt()
        # 1e-9: the norm's eps is all but lost in the probes that find its gain
        torch.testing.assert_close(x @ folded / scale[:, None] + bias, expected, rtol=0, atol=1e-9)
    found = inputs(hooked.weights, 2, "folded")
    torch.testing.assert_close(found.size, folded.norm(dim=0), rtol=1e-9, atol=0)
    torch.testing.assert_close(found.bias, bias.detach(), rtol=0, atol=1e-9)
    own = inputs(hooked.weights, 2, "own")
    torch.testing.assert_close(own.product, (weight.norm(dim=0) * block.mlp.c_fc.bias).detach())


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "phi", "opt", "falcon_alibi"])
def test_quantiles_and_histogram_are_of_the_products(family: str) -> None:
    data = Superposition()(model(family)).data
    assert data["layer"].values.tolist() == [1, 2, 3]
    product = data["product"].values
    np.testing.assert_allclose(product, data["weight_norm"].values * data["bias"].values)
    np.testing.assert_allclose(
        data["quantiles"].values, np.quantile(product, (0.2, 0.5, 0.8), axis=1).T, rtol=1e-12
    )
    low, high = data["bin_low"].values, data["bin_high"].values
    for layer, row in enumerate(product):
        counted = [int(((row >= a) & (row < b)).sum()) for a, b in zip(low, high, strict=True)]
        assert data["count"].values[layer].tolist() == counted
    assert (data["count"].sum("bin") == data.sizes["unit"]).all()
    assert not data["shuffled_quantiles"].equals(data["quantiles"])


@pytest.mark.parametrize(
    ("family", "norm", "message"),
    [
        ("llama", "own", "at layer 1: its up and gate have none"),
        ("gemma2", "folded", "its up and gate have none"),
        ("mixtral", "own", "experts of its own"),
        ("t5", "own", "have none"),
        ("bert", "folded", "goes through a norm"),
    ],
)
def test_what_has_no_such_statistic_is_refused(family: str, norm: str, message: str) -> None:
    with pytest.raises(wb.UnsupportedError, match=message):
        Superposition(norm=norm)(model(family))  # type: ignore[arg-type]


def test_command_line_panels_facts_and_report(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["run", "superposition", "--json"])
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)
    assert [row["layer"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert all(row["p20"] < row["p50"] < row["p80"] for row in rows)
    refused = CliRunner().invoke(cli, ["run", "superposition", "--set", "norm=none"])
    assert refused.exit_code == 2
    with pytest.raises(wb.SettingError, match="seed is 'x': expected a whole number"):
        Superposition(seed="x")  # type: ignore[arg-type]
    hooked = model("gpt2")
    result = Superposition()(hooked)
    assert [panel.name for panel in Superposition.panels(result.data)] == ["product", "histogram"]
    assert Superposition.facts(result.data, layer=0) == []
    assert len(Superposition.facts(result.data, layer=2)) == 5
    assert result.plot().data
    made = report(hooked, ["a", "b"], [Superposition()], tmp_path / "out", shard_size=1)
    assert made.page is not None
    assert wb.Result.load(tmp_path / "out" / "superposition.nc").data.equals(result.data)
