"""Settings as text: what a form shows is what the instrument gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pytest

import workbench as wb
from lenses import LogitLens
from workbench.settings import Setting, configure, settings_of, text_of


@dataclass(frozen=True)
class Sample(wb.Reading):
    """Every kind of setting.

    Attributes:
        mode: how it is done: exactly,
            or nearly.
        strength: how much.
        loud: whether to say so.

    More about it, which is no setting: nothing.
    """

    strength: float
    mode: Literal["exact", "near"] = "near"
    loud: bool = False
    heads: Sequence[int] = (1, 2)

    name: ClassVar[str] = "sample"
    title: ClassVar[str] = "Sample"
    citation: ClassVar[wb.Citation] = wb.Citation("", "")

    def reads(self, model: wb.Model) -> wb.Read:
        return wb.Read("resid_post")

    def measure(self, captures: wb.Captures) -> wb.Measured:
        return {}

    def coords(self, model: wb.Model) -> Mapping[str, Sequence[Any]]:
        return {}


def test_a_choice_that_is_none_and_a_setting_that_is_missing_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("workbench.settings.find", lambda name: Sample)
    assert configure("sample", ["strength=2", "mode=exact", "loud=True"]) == Sample(
        2, "exact", True
    )
    with pytest.raises(wb.SettingError, match="mode is 'zzz': expected one of exact, near"):
        configure("sample", ["strength=2", "mode=zzz"])
    with pytest.raises(wb.SettingError, match="strength has no default: give strength="):
        configure("sample", ["mode=near"])


def test_a_form_knows_default_choices_and_help() -> None:
    assert settings_of(Sample) == [
        Setting("strength", "", "how much.", ()),
        Setting("mode", "near", "how it is done: exactly, or nearly.", ("exact", "near")),
        Setting("loud", "false", "whether to say so.", ("true", "false")),
        Setting("heads", "1,2", "", ()),
    ]


def test_the_defaults_of_a_form_are_the_instruments_own() -> None:
    texts = [f"{setting.name}={setting.default}" for setting in settings_of(LogitLens)]
    assert configure("logit_lens", texts) == LogitLens()


@pytest.mark.parametrize(
    "positions", ["last", (3,), (0, 5), (-1,), slice(0, 5), slice(None, -2), slice(None, None, 2)]
)
def test_positions_survive_the_way_through_text(positions: Any) -> None:
    written = f"positions={text_of(positions)}"
    assert configure("logit_lens", [written]) == LogitLens(positions=positions)


def test_values_read_as_what_they_are() -> None:
    given = configure("logit_lens", ["top_k=3", "divergences=false", "sites=attn_out,mlp_out"])
    assert given == LogitLens(top_k=3, divergences=False, sites=("attn_out", "mlp_out"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("top_k", "expected name=value"),
        ("depth=3", "has no setting 'depth': expected one of top_k"),
        ("top_k=many", "top_k is 'many': expected a whole number"),
        ("positions=0:x", "unknown positions"),
    ],
)
def test_a_bad_setting_is_named(text: str, says: str) -> None:
    with pytest.raises(wb.SettingError, match=says) as caught:
        configure("logit_lens", [text])
    assert "\n" not in str(caught.value)
