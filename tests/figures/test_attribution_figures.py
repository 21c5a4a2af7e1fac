"""What figure, panels and facts of a direct-attribution result say."""

from __future__ import annotations

from functools import cache

import pytest

import workbench as wb
from lenses import DirectAttribution
from tests.tiny import model

SPLIT = ("heads", "sources", "neurons")
TEXT = "The Eiffel Tower is located in the city of"


@cache
def measured(
    target: str | None = " Paris", foil: str | None = " Rome", split: tuple[str, ...] = SPLIT
) -> wb.Result:
    return DirectAttribution(split=split)(wb.load(), wb.Prompt(TEXT, target=target, foil=foil))


def title(result: wb.Result) -> str:
    return str(result.plot().layout.annotations[-1].text)


def test_the_title_says_what_is_attributed_and_what_the_sum_lacks() -> None:
    data = measured().data.isel(place=-1)
    said = title(measured())
    assert said.startswith("<b>logit of ·Paris − ·Rome</b><br>position 11 ·of: +14.")
    assert said.endswith(f"all terms sum to it within {abs(float(data.residual)):.1e}")
    alone = title(measured(foil=None))
    assert alone.startswith("<b>logit of ·Paris − mean of the vocabulary</b>")
    none = title(measured(None, None))
    assert none.startswith(
        "<b>logit of ·Paris (the model's own top token) − mean of the vocabulary"
    )
    capped = DirectAttribution()(model("gemma2"), wb.Prompt("Rome", target=60, foil="b"))
    assert title(capped).startswith("<b>logit of ] − b, before the soft-cap</b>")


def test_tokens_are_no_markup() -> None:
    hostile = DirectAttribution()(model("gpt2"), wb.Prompt("<b>", target="<", foil=">"))
    assert title(hostile).startswith("<b>logit of &lt; − &gt;</b><br>position 2 &gt;:")


def test_panels_are_those_of_the_splits() -> None:
    data = measured().data
    branches, heads, sources, neurons = DirectAttribution.panels(data)
    assert branches.title == "logit, ·Paris − ·Rome"
    assert heads.scale.low == -heads.scale.high
    last = data.isel(place=-1)
    assert heads.scale.high == pytest.approx(float(abs(last.head_contribution).max()))
    best = abs(last.neuron_contribution.sel(layer=6, k=1))
    assert abs(neurons.values.sel(layer=6, k=1)) == best
    assert neurons.tokens.sel(layer=6, k=1) == str(int(last.neuron_unit.sel(layer=6, k=1)))
    found = last.source_contribution.sel(layer=4)
    head, k = (int(i) for i in divmod(int(abs(found.fillna(0).values).argmax()), 10))
    assert sources.values.sel(layer=4, k=1) == found.isel(head=head, k=k)
    place = int(last.source_position.sel(layer=4).isel(head=head, k=k))
    assert sources.tokens.sel(layer=4, k=1) == f"{head}←{place}:{data.token.values[place]}"
    lean = measured(split=("components",)).data
    assert [panel.name for panel in DirectAttribution.panels(lean)] == ["branches"]


def test_facts_of_a_cell() -> None:
    data = measured().data
    said = dict(DirectAttribution.facts(data, layer=5, position=11))
    cell = data.isel(place=11).sel(layer=5)
    assert said["attributed"] == "logit of ·Paris − ·Rome"
    attention = float(cell.contribution.sel(component="attn_out"))
    assert said["attention adds"] == f"{attention:+.3f} logit"
    largest = int(abs(cell.head_contribution.values).argmax())
    assert said["largest heads"].startswith(f"{largest}: ")
    assert said["sum of terms less logit"] == f"{float(cell.residual):+.1e} logit"
    below = dict(DirectAttribution.facts(data, layer=0, position=11))
    assert "embedding adds" in below
    assert "attention adds" not in below
