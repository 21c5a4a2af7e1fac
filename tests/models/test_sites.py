"""Names of sites and layers, and what is refused."""

import pytest
import torch

import workbench as wb
from tests.tiny import LAYERS, model
from workbench.models.sites import expand_sites


def test_layers_of_each_site() -> None:
    assert [s.layer for s in expand_sites(["resid_post"], 3)] == [0, 1, 2, 3]
    assert [s.layer for s in expand_sites("attn_out", 3)] == [1, 2, 3]
    assert expand_sites(["embed", "logits"], 3) == (("embed", 0), ("logits", 3))
    assert expand_sites([("mlp_out", 2), "mlp_out"], 2) == (("mlp_out", 2), ("mlp_out", 1))


@pytest.mark.parametrize(
    ("request_", "error", "message"),
    [
        ("resid_psot", wb.SettingError, "unknown site 'resid_psot': expected one of embed"),
        (("resid_post", 4), wb.SettingError, r"resid_post has no layer 4: expected 0\.\.3"),
        (("attn_out", 0), wb.SettingError, r"attn_out has no layer 0: expected 1\.\.3"),
        (("resid_post", -1), wb.SettingError, "no layer -1"),
        (4, wb.SettingError, r"site 4: expected a name or a \(name, layer\) pair"),
        (("pattern", 0), wb.SettingError, r"pattern has no layer 0: expected 1\.\.3"),
    ],
)
def test_refused(request_: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        model("gpt2").capture("abc", [request_])  # type: ignore[list-item]


def test_reading_or_editing_below_a_restart_is_refused() -> None:
    hooked = model("gpt2")
    batch = hooked.batch("abc")
    resid = torch.zeros(1, 3, 16, dtype=torch.float64)
    with pytest.raises(wb.SettingError, match="lies below the restart at layer 2"):
        hooked.tail(batch, 2, resid, ["resid_post"])
    edit = wb.Edit.set(("mlp_out", 2), torch.zeros(16))
    with pytest.raises(wb.SettingError, match="lies below the restart"):
        hooked.intervene(batch, [edit], start=(2, resid))
    assert hooked.tail(batch, 2, resid, [("resid_post", 2)])["resid_post", 2].abs().max() == 0


def test_logits_cannot_be_edited() -> None:
    with pytest.raises(wb.UnsupportedError, match="logits cannot be edited"):
        wb.Edit.set(("logits", LAYERS), torch.zeros(1))


def test_what_was_not_read_is_named() -> None:
    with pytest.raises(wb.SettingError, match="mlp_out, layer 1 was not read"):
        model("gpt2").capture("abc", ["resid_post"])["mlp_out", 1]
