"""From what is asked on the page to what it shows: jobs handed in, followed, and taken over."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from app.bench import Bench
from app.instruments import together
from app.link import Link
from app.parts import alert, failure, notice
from app.state import Asked, Pending, Run, Selection, Settings
from workbench import SettingError
from workbench.figures import shorten
from workbench.jobs import Job

__all__ = ["Page", "add", "aimed", "follow", "measure", "move", "open_link", "pending", "seen"]

FIRST_SITE = "resid_post"
WORDS = {"site": "component", "layer": "layer", "position": "position"}
LONGEST_SAID = 30  # characters of what a link says that a notice repeats


@dataclass(frozen=True)
class Page:
    """What the page shows.

    Attributes:
        job: its latest job.
        run, selection: what is measured, and what of it is selected.
        alert: what there is to say of it, as a component.
    """

    job: Pending | None = None
    run: Run | None = None
    selection: Selection | None = None
    alert: Any = None


def measure(
    bench: Bench,
    page: Page,
    asked: Asked,
    settings: Settings,
    off: Collection[str],
    beside: Collection[str] = (),
) -> Page:
    """Measure what the fields say, with every instrument that shares the pass, and those `beside`.

    Raises:
        WorkbenchError: the model, the prompt or a setting cannot be used.
    """
    job = bench.ask(asked, [*together(off), *beside], settings)
    return follow(bench, Pending(job.id, asked, settings, {}), job, page)


def aimed(asked: Asked, aim: Mapping[str, str] | None) -> Asked:
    """What is asked, with the subject and the corrupted text that were chosen for its text.

    A prompt of a set has those of its line.
    """
    if aim is None or asked.prompts or aim["text"] != asked.text:
        return asked
    return replace(asked, subject=aim["subject"], corrupted=aim["corrupted"])


def add(
    bench: Bench,
    page: Page,
    instrument: str,
    settings: Settings,
    off: Collection[str] = (),
    aim: Mapping[str, str] | None = None,
) -> Page:
    """Measure the page's prompt with one more instrument.

    Where another subject or corrupted text was chosen for it, it is another prompt: what is measured
    with every prompt is measured anew, too.

    Raises:
        SettingError: nothing is measured yet.
        WorkbenchError: a setting cannot be used.
    """
    if page.run is None:
        raise SettingError("nothing is measured yet: press Run first")
    asked = aimed(page.run.asked, aim)
    if asked != page.run.asked:
        return measure(bench, page, asked, settings, off, [instrument])
    job = bench.ask(asked, [instrument], settings)
    return follow(bench, Pending(job.id, asked, settings, {}, adds=True), job, page)


def open_link(bench: Bench, link: Link, start: Asked) -> Page:
    """The page of a link; `start` is what is measured where the link does not say.

    Raises:
        WorkbenchError: what the link names cannot be measured here.
    """
    if link.job is not None:
        job = bench.measurement(str(link.job))
        asked, _ = bench.asked(job, link.place.get("prompt"))
        pending = Pending(job.id, asked, bench.settings(job), link.place, unused=link.unused)
    else:
        asked = link.asked or replace(start, model=link.model)
        asked = asked if asked.model else replace(asked, model=start.model)
        names = dict.fromkeys([*together(link.off), *link.beside])
        job = bench.ask(asked, list(names), link.settings)
        pending = Pending(job.id, asked, link.settings, link.place, link.weights, link.unused)
    return follow(bench, pending, job, Page())


def follow(bench: Bench, pending: Pending, job: Job, page: Page) -> Page:
    """The page after what its job has come to.

    Raises:
        ResultError: the job's results are not stored any more.
    """
    pending = seen(pending, job)
    if pending.going:
        return replace(page, job=pending, alert=None)
    if pending.adds:
        return _joined(bench, pending, job, page)
    if job.state != "done":
        return replace(page, job=pending, alert=_ended(job))
    run, name = bench.run(job, pending.settings, pending.place.get("prompt"))
    place = pending.place or _kept(run.asked, page)
    selection = _placed(run, name, place, bench.sites(run))
    return Page(pending, run, selection, _noticed(pending, run, selection))


def move(bench: Bench, page: Page, at: str) -> Page:
    """The page at another prompt of its set; the last position of the same layer is selected.

    Raises:
        ResultError: the set or its results are not stored any more.
    """
    assert page.run is not None
    assert page.selection is not None
    run, name = bench.moved(page.run, at)
    place = {"site": page.selection.site, "layer": page.selection.layer}
    selection = _placed(run, name, place, bench.sites(run))
    return replace(page, run=run, selection=selection, alert=None)


def seen(pending: Pending, job: Job) -> Pending:
    """What the page knows of a job, as the job is now."""
    names = tuple(instrument["name"] for instrument in job.instruments)
    of_job = ("state", "phase", "done", "total", "seconds_left", "error")
    return replace(
        pending, job=job.id, instruments=names, **{name: getattr(job, name) for name in of_job}
    )


def pending(job: Job) -> dict[str, Any]:
    """What a page that follows one job keeps of it, as plain data."""
    return seen(Pending(job.id, Asked(job.model, "", prompts=job.prompts), {}, {}), job).stored()


def _joined(bench: Bench, pending: Pending, job: Job, page: Page) -> Page:
    """Results join the run that they were asked for; a refusal is said where they would stand."""
    if page.run is None or page.run.asked != pending.asked:
        return replace(page, job=pending)
    if not job.results and not job.refused:
        return replace(page, job=pending, alert=_ended(job))
    return replace(page, job=pending, run=bench.joined(page.run, job, pending.settings), alert=None)


def _ended(job: Job) -> Any:
    if job.state == "cancelled":
        return notice("Cancelled: nothing was measured.")
    return failure(str(job.error)) if job.state == "lost" else alert(str(job.error))


def _kept(asked: Asked, page: Page) -> Mapping[str, Any]:
    """What stays selected: the component, and on the same prompt the cell as well."""
    if page.run is None or page.selection is None:
        return {}
    at, before = page.selection, page.run.asked
    if (before.model, before.text) != (asked.model, asked.text):
        return {"site": at.site}
    return {"site": at.site, "layer": at.layer, "position": at.position}


def _placed(
    run: Run, name: int | str, place: Mapping[str, Any], sites: Collection[str]
) -> Selection:
    """The cell nearest to a place; by default the last position at the last layer."""
    site = place.get("site", FIRST_SITE)
    site = site if site in sites else FIRST_SITE
    lowest = 0 if site == FIRST_SITE else 1
    layer = place.get("layer", run.layers)
    position = place.get("position", run.positions - 1)
    return Selection(
        prompt=name,
        layer=min(max(lowest, layer), run.layers),
        position=min(max(0, position), run.positions - 1),
        site=site,
    )


def _noticed(pending: Pending, run: Run, selection: Selection) -> Any:
    """What a link's reader must know: numbers of other weights, parts that mean nothing here."""
    lines = [*_other_weights(pending, run), *_elsewhere(pending.place, selection)]
    if pending.unused:
        lines.append(f"Of this link, the page cannot use {'; '.join(pending.unused)}.")
    return notice(" ".join(lines)) if lines else None


def _other_weights(pending: Pending, run: Run) -> Iterator[str]:
    if pending.weights not in ("", run.weights):
        yield (
            f"This link was made with other weights of {run.asked.model} "
            f"({shorten(pending.weights, LONGEST_SAID)}, here {run.weights}): numbers may differ."
        )


def _elsewhere(place: Mapping[str, Any], selection: Selection) -> Iterator[str]:
    """Where the selection is not what was asked for."""
    for part in ("site", "layer", "position"):
        there = getattr(selection, part)
        if place.get(part, there) != there:
            asked = shorten(str(place[part]), LONGEST_SAID)
            yield f"There is no {WORDS[part]} {asked} here: {there} is shown."
    if place.get("prompt", str(selection.prompt)) != str(selection.prompt):
        asked = shorten(str(place["prompt"]), LONGEST_SAID)
        yield f"There is no prompt {asked} in this set: {selection.prompt} is shown."
