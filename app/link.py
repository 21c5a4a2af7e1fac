"""The page's address: what it names, and how it is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlencode

from app.instruments import kinds, shares_the_pass
from app.state import Asked, Run, Settings
from workbench import Prompt, PromptSet
from workbench.figures import shorten
from workbench.settings import settings_of

__all__ = ["Link", "asked_of", "query"]

LONGEST_IN_LINK = 200  # characters
LONGEST_SAID = 30  # characters of a foreign name that a notice repeats
DIGITS = 9  # of a number in a link; a longer one is none of this page's
NUMBERS = ("layer", "position", "job")
OF_PROMPT = ("target", "foil", "subject", "corrupted")
NAMES = ("model", "prompt", "prompt_id", *OF_PROMPT, "at", "weights", "with", "site", "tab", "off")


@dataclass(frozen=True)
class Link:
    """What the page's address says; None or empty where it says nothing.

    Attributes:
        asked: what is measured; without a model's name where the link has none.
        place: what is selected: layer, position, site, and the prompt as text.
        weights: the first digits of the hash of the weights that the link was made with.
        beside: instruments that were measured beside those of every run.
        job: the number of a job to show instead.
        tab: the tab in front.
        off: panels that are switched off.
        settings: of the instruments.
        looks: values of the tabs' own controls.
        wrong: what is wrong with the link, in one line.
        unused: what it says and the page cannot use, a few words each.
        model: the model's name, also where nothing else is asked.
    """

    asked: Asked | None = None
    place: Mapping[str, Any] = field(default_factory=dict)
    weights: str = ""
    beside: tuple[str, ...] = ()
    job: int | None = None
    tab: str | None = None
    off: tuple[str, ...] = ()
    settings: Settings = field(default_factory=dict)
    looks: Mapping[str, str] = field(default_factory=dict)
    wrong: str = ""
    unused: tuple[str, ...] = ()
    model: str = ""

    @classmethod
    def read(
        cls, search: str, looks: Collection[str], kept: Callable[[str], PromptSet | None]
    ) -> Link:
        """The link of a page's query string.

        Args:
            search: the query string, with or without its "?".
            looks: names of the tabs' own controls.
            kept: the prompts with this id, or None.
        """
        pairs = parse_qsl(search.removeprefix("?"))
        fields = dict(pairs)
        numbers = {name: int(fields[name]) for name in NUMBERS if _whole(fields.get(name))}
        asked, lost = _asked(fields, kept)
        texts = {"site": fields.get("site"), "prompt": fields.get("at")}
        place = {name: numbers[name] for name in ("layer", "position") if name in numbers}
        return cls(
            asked,
            place | {name: text for name, text in texts.items() if text is not None},
            fields.get("weights", ""),
            _list(fields.get("with")),
            numbers.get("job"),
            fields.get("tab"),
            _list(fields.get("off")),
            _settings(fields, looks),
            {name: fields[name] for name in looks if name in fields},
            lost or _no_number(fields),
            tuple(_unused([name for name, _ in pairs], looks)),
            fields.get("model", ""),
        )


def query(run: Run) -> str:
    """The part of the address that names what is measured.

    A prompt that is long or one of a set goes by the id under which it is kept. Instruments that
    are not part of every run are named.
    """
    asked = run.asked
    inline = len(asked.text) <= LONGEST_IN_LINK and not asked.prompts
    followed = {name: getattr(asked, name) for name in OF_PROMPT}
    text = {"prompt": asked.text} | followed if inline else {"prompt_id": run.kept}
    beside = [name for name in run.results if not shares_the_pass(kinds()[name])]
    said = {"weights": run.weights, "with": ",".join(beside)}
    chosen = {
        f"{name}.{s}": value for name, own in run.settings.items() for s, value in own.items()
    }
    fields = {"model": asked.model} | text | said | chosen
    return urlencode({name: value for name, value in fields.items() if value})


def _asked(
    fields: Mapping[str, str], kept: Callable[[str], PromptSet | None]
) -> tuple[Asked | None, str]:
    """What is asked, or what is wrong with it."""
    model, identifier = fields.get("model", ""), fields.get("prompt_id")
    if "prompt" in fields:
        followed = {name: fields[name] for name in OF_PROMPT if name in fields}
        return Asked(model, fields["prompt"], **followed), ""
    if identifier is None:
        return None, ""
    prompts = kept(identifier)
    if prompts is None:
        return None, (
            f"the prompt {identifier} of this link is not on this server: paste the prompt itself "
            "and press Run"
        )
    return asked_of(model, identifier, prompts, fields.get("at"))[0], ""


def asked_of(
    model: str, identifier: str, prompts: PromptSet, at: str | None
) -> tuple[Asked, int | str]:
    """The prompt called `at`, or the first, of the set kept under `identifier`; and its name."""
    names = [str(name) for name in prompts.names]
    index = names.index(at) if at in names else 0
    one = prompts[index]
    target, foil = ("" if token is None else str(token) for token in (one.target, one.foil))
    own = len(prompts) > 1 or bool(one.messages)  # a text alone can be measured without its set
    kept = identifier if own else ""
    asked = Asked(model, one.shown, target, foil, kept, _subject(one), one.corrupted or "")
    return asked, prompts.names[index]


def _subject(prompt: Prompt) -> str:
    """The characters of a prompt's subject; "" where there is none, or no single place for it."""
    if prompt.subject is None or prompt.messages:
        return ""
    if isinstance(prompt.subject, str):
        start = prompt.text.find(prompt.subject)
        if prompt.text.count(prompt.subject) != 1:
            return ""
        return f"{start}:{start + len(prompt.subject)}"
    start, end = prompt.subject
    return f"{start}:{end}"


def _settings(fields: Mapping[str, str], looks: Collection[str]) -> Settings:
    found: dict[str, dict[str, str]] = {}
    for name, value in fields.items():
        instrument, dot, setting = name.partition(".")
        if dot and name not in looks:
            found.setdefault(instrument, {})[setting] = value
    return found


def _list(text: str | None) -> tuple[str, ...]:
    return tuple(name for name in (text or "").split(",") if name)


def _unused(names: Sequence[str], looks: Collection[str]) -> Iterator[str]:
    """What the page cannot use of a link that names these, in a few words each."""
    known = {*NAMES, *NUMBERS, *looks}
    for name, count in Counter(names).items():
        said = shorten(name, LONGEST_SAID)
        if name not in known and not _sets(name):
            yield f"“{said}”, which is no part of a link"
        elif count > 1:
            yield f"all but the last “{said}” of {count}"
        elif name in OF_PROMPT and "prompt" not in names:
            yield f"the {name}, which needs a prompt in the link"


def _sets(name: str) -> bool:
    """Whether this names a setting of an installed instrument."""
    instrument, _, setting = name.partition(".")
    kind = kinds().get(instrument)
    return kind is not None and setting in (it.name for it in settings_of(kind))


def _whole(value: str | None) -> bool:
    return value is not None and value.isascii() and value.isdecimal() and len(value) <= DIGITS


def _no_number(fields: Mapping[str, str]) -> str:
    for name in NUMBERS:
        if name in fields and not _whole(fields[name]):
            return (
                f"{name}={fields[name][:20]} in this link is no whole number: expected 0 or more, as "
                "the page itself writes it"
            )
    return ""
