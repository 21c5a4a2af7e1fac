"""Links and what they mean."""

from __future__ import annotations

import pytest

from app.link import Link, asked_of, query
from app.state import Asked, Run
from workbench import Prompt, PromptError, PromptSet

LOOKS = ("colour", "view")


def read(search: str, **kept: PromptSet) -> Link:
    return Link.read(search, LOOKS, kept.get)


def written(asked: Asked, **parts: object) -> str:
    empty = {"results": {}, "refused": {}, "settings": {}, "weights": "abcd", "kept": "id"}
    return query(Run(asked, layers=6, positions=3, **(empty | parts)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "asked",
    [
        Asked("atlas", "The city of", " Paris", " Rome"),
        Asked("atlas", "a&b=c?#%20 <b> 日本\n\t", "", ""),
        Asked("atlas", "The city of", " Paris", subject="4:8", corrupted="The town of"),
    ],
)
def test_a_link_gives_back_what_was_asked(asked: Asked) -> None:
    link = read("?" + written(asked))
    assert link.asked == asked
    assert link.weights == "abcd"


def test_a_long_prompt_goes_by_its_id() -> None:
    asked = Asked("atlas", "word " * 1000, " Paris")
    search = written(asked)
    assert len(search) < 100
    assert read(search, id=PromptSet.of(asked.prompt())).asked == asked
    lost = read(search)
    assert lost.asked is None
    assert "is not on this server: paste the prompt" in lost.wrong


def test_a_prompt_of_a_set_goes_by_the_sets_id_and_its_name() -> None:
    prompts = PromptSet.of([Prompt("one", id="a"), Prompt("two", id="b", target=" x")])
    search = written(Asked("atlas", "two", " x", "", "id"))
    assert "prompt=" not in search
    assert read(search + "&at=b", id=prompts).asked == Asked("atlas", "two", " x", "", "id")
    assert read(search + "&at=gone", id=prompts).asked == Asked("atlas", "one", "", "", "id")


def test_settings_and_instruments_beside_the_usual_ones_are_named() -> None:
    search = written(Asked("atlas", "x"), settings={"logit_lens": {"top_k": "3"}})
    link = read(search + "&with=a,b&off=c.d,e")
    assert link.settings == {"logit_lens": {"top_k": "3"}}
    assert (link.beside, link.off) == (("a", "b"), ("c.d", "e"))


def test_an_empty_address_asks_for_nothing() -> None:
    assert read("") == Link()


def test_the_selection_and_the_view_are_read() -> None:
    link = read("?layer=3&position=7&site=mlp_out&at=p1&colour=kl&view=table&tab=layers&hue=red")
    assert link.place == {"layer": 3, "position": 7, "site": "mlp_out", "prompt": "p1"}
    assert link.looks == {"colour": "kl", "view": "table"}
    assert link.tab == "layers"


@pytest.mark.parametrize("search", ["layer=-1", "position=1.5", "layer=last", "job=²"])
def test_a_bad_number_is_named_and_the_rest_is_read(search: str) -> None:
    link = read(f"?prompt=The+city&{search}")
    assert search in link.wrong
    assert link.asked == Asked("", "The city")


@pytest.mark.parametrize("name", ["layer", "position", "job"])
def test_a_number_too_long_to_be_one_is_named(name: str) -> None:
    link = read(f"?{name}={'9' * 5000}")
    assert f"{name}=99999999999999999999 in this link is no whole number" in link.wrong
    assert len(link.wrong) < 200


def test_what_a_link_says_in_vain_is_named() -> None:
    link = read(
        "?prompt=The+city&hue=red&layer=2&layer=3&with=a,,&logit_lens.top_k=3&aura.size=1"
        "&edit.size=1&" + "x" * 90 + "=1"
    )
    assert link.place["layer"] == 3
    assert link.beside == ("a",)
    assert link.unused == (
        "“hue”, which is no part of a link",
        "all but the last “layer” of 2",
        "“aura.size”, which is no part of a link",
        "“edit.size”, which is no part of a link",
        f"“{'x' * 29}…”, which is no part of a link",
    )


def test_a_link_may_name_a_model_alone() -> None:
    link = read("?model=atlas-bag&target=+Paris")
    assert (link.asked, link.model) == (None, "atlas-bag")
    assert link.unused == ("the target, which needs a prompt in the link",)


def test_a_subject_is_asked_for_by_its_characters() -> None:
    place = {"text": "The city of the city", "corrupted": "The town of the city"}
    for subject, said in (("city of", "4:11"), ("city", ""), ((16, 20), "16:20"), (None, "")):
        kept = PromptSet.of([Prompt(**place, subject=subject)])
        asked, _ = asked_of("atlas", "abc", kept, None)
        assert (asked.subject, asked.corrupted, asked.prompts) == (said, place["corrupted"], "")
    assert Asked("", "The city", subject="4:8").prompt().subject == (4, 8)
    for bad in ("city", "4", "4:-1", "4:8:9", "²:8", "9" * 99 + ":1"):
        with pytest.raises(PromptError, match="is no span of the prompt: expected start:end"):
            Asked("", "The city", subject=bad).prompt()


def test_a_chat_is_asked_by_its_set() -> None:
    """The page's field shows what is said; what is measured are the messages that are kept."""
    chat = Prompt(messages=[{"role": "user", "content": "Hello"}], target=" World")
    asked, name = asked_of("atlas", "abc", PromptSet.of([chat]), None)
    assert asked == Asked("atlas", "user: Hello", " World", prompts="abc")
    assert name == 0
