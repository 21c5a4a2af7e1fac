"""Links and what they mean."""

from __future__ import annotations

import pytest

from app.state import Asked, Link, LinkError, prompt_id


def unknown(_: str) -> None:
    return None


@pytest.mark.parametrize(
    "asked",
    [
        Asked("atlas", "The city of", " Paris", " Rome"),
        Asked("atlas", "a&b=c?#%20 <b> 日本\n\t", "", ""),
    ],
)
def test_a_link_gives_back_what_was_asked(asked: Asked) -> None:
    assert Link.read("?" + Link.query(asked), unknown).asked == asked


def test_a_long_prompt_goes_by_its_id() -> None:
    asked = Asked("atlas", "word " * 1000)
    query = Link.query(asked)
    assert len(query) < 100
    texts = {prompt_id(asked.text): asked.text}
    assert Link.read(query, texts.get).asked == asked
    with pytest.raises(LinkError, match="is not on this server: paste the prompt"):
        Link.read(query, unknown)


def test_an_empty_address_asks_for_nothing() -> None:
    assert Link.read("", unknown) == Link()


def test_the_selection_and_the_view_are_read() -> None:
    link = Link.read("?layer=3&position=7&site=mlp_out&colour=kl&view=table", unknown)
    assert (link.layer, link.position) == (3, 7)
    assert (link.site, link.colour, link.view) == ("mlp_out", "kl", "table")


@pytest.mark.parametrize("query", ["layer=-1", "position=1.5", "layer=last"])
def test_a_bad_number_is_named(query: str) -> None:
    with pytest.raises(LinkError, match=query):
        Link.read(query, unknown)


def test_a_link_without_a_model_is_read_on_the_pages_own() -> None:
    start = Asked("atlas", "The", "")
    link = Link.read("?prompt=The+city&target=+Paris", lambda _: None)
    assert link.asked_of(start) == Asked("atlas", "The city", " Paris")
    assert Link().asked_of(start) == start
