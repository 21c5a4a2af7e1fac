"""What the report's page tells, gathered from the folder: plain values for the template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from workbench.instrument import Instrument, SetLevel
from workbench.report.folder import PROMPTS, Folder
from workbench.report.sections import Listing, Section
from workbench.report.words import duration, moment
from workbench.results import called
from workbench.settings import text_of
from workbench.store.manifest import read_manifest

__all__ = ["Chapter", "Failures", "Story", "told"]

SHOWN_FAILURES = 50


@dataclass(frozen=True)
class Chapter:
    """One instrument's section.

    Attributes:
        rows: where its tidy rows lie, from the folder on.
        cite: the method's source, as a sentence and as BibTeX.
    """

    name: str
    title: str
    settings: str
    rows: str
    section: Section
    cite: tuple[str, str]


@dataclass(frozen=True)
class Failures:
    """What could not be measured: all of it counted, the first of it shown."""

    prompts: int
    count: int
    table: pl.DataFrame


@dataclass(frozen=True)
class Story:
    """Everything that the page says.

    Attributes:
        facts: what was run, as (name, value).
    """

    title: str
    opening: str
    facts: Sequence[tuple[str, str]]
    chapters: Sequence[Chapter]
    failures: Failures


def told(folder: Folder, sections: Mapping[Instrument, Section]) -> Story:
    """The story of a finished folder."""
    manifest = read_manifest(folder.path)
    prompts = pl.scan_parquet(folder.files(PROMPTS))
    failures = _failures(folder)
    model = called(manifest["model"] | manifest["recorded"]["model"])
    source = manifest["recorded"]["prompts"]["name"]
    count = manifest["prompts"]["count"]
    measured = f"{count - failures.prompts} of {count} prompts"
    titles = ", ".join(instrument.title for instrument in sections)
    return Story(
        title=f"{model} on {source}",
        opening=f"{titles}: {measured} measured without an error.",
        facts=_facts(manifest, folder, prompts, failures),
        chapters=[
            _chapter(instrument, section, model, prompts)
            for instrument, section in sections.items()
        ],
        failures=failures,
    )


def _chapter(
    instrument: Instrument, section: Section, model: str, prompts: pl.LazyFrame
) -> Chapter:
    settings = _settings(instrument)
    source = instrument.source(instrument.settings())
    sentence = source.sentence.format(settings=settings, model=model)
    name = instrument.name
    return Chapter(
        name=name,
        title=instrument.title,
        settings=settings or "none",
        rows=f"{name}.parquet" if isinstance(instrument, SetLevel) else f"shards/*/{name}.parquet",
        section=Section(
            section.headlines,
            section.plots,
            [_with_texts(listing, prompts) for listing in section.listings],
            section.remarks,
        ),
        cite=(sentence, source.bibtex),
    )


def _settings(instrument: Instrument) -> str:
    found = instrument.settings().items()
    return ", ".join(f"{name}={text_of(value).removesuffix(',')}" for name, value in found)


def _with_texts(listing: Listing, prompts: pl.LazyFrame) -> Listing:
    """The listing with the text of each prompt after its name."""
    if "prompt" not in listing.table.columns:
        return listing
    names = listing.table["prompt"].implode()
    texts = prompts.filter(pl.col("prompt").is_in(names)).select("prompt", "text").collect()
    table = listing.table.join(texts, on="prompt", how="left", maintain_order="left")
    order = ["prompt", "text", *(c for c in listing.table.columns if c != "prompt")]
    return Listing(listing.title, listing.caption, table.select(order))


def _failures(folder: Folder) -> Failures:
    found = list(folder.failures())
    shown = [(str(one.prompt), one.instrument, one.error) for one in found[:SHOWN_FAILURES]]
    table = pl.DataFrame(shown, schema=["prompt", "instrument", "error"], orient="row")
    return Failures(len({one.prompt for one in found}), len(found), table)


def _facts(
    manifest: Mapping[str, Any], folder: Folder, prompts: pl.LazyFrame, failures: Failures
) -> list[tuple[str, str]]:
    return [
        *_model_facts(manifest),
        *_prompt_facts(manifest, prompts, failures),
        *_work_facts(manifest, folder.made()),
    ]


def _model_facts(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    model = manifest["model"] | manifest["recorded"]["model"]
    revision = f", revision {model['revision']}" if model["revision"] else ""
    return [
        ("Model", f"{called(model)}{revision} ({model['family']}, {model['n_layers']} layers)"),
        (
            "Computed in",
            f"{model['dtype']}, {model['attention']} attention, engine {model['engine']}",
        ),
        ("Weights, tokenizer", f"hashes {model['weights']}, {model['tokenizer']}"),
    ]


def _prompt_facts(
    manifest: Mapping[str, Any], prompts: pl.LazyFrame, failures: Failures
) -> list[tuple[str, str]]:
    source, asked = manifest["recorded"]["prompts"], manifest["prompts"]
    tokens = prompts.select(pl.col("tokens").sum()).collect().item()
    return [
        (
            "Prompts",
            f"{asked['count']} of {source['name']} (hash {asked['hash']}), {tokens} tokens",
        ),
        ("Left out", f"{source['rejected']} bad lines; {failures.prompts} prompts with an error"),
    ]


def _work_facts(
    manifest: Mapping[str, Any], made: Sequence[Mapping[str, Any]]
) -> list[tuple[str, str]]:
    versions = ", ".join(f"{k} {v}" for k, v in manifest["recorded"]["versions"].items())
    devices = ", ".join(sorted({one["device"] for one in made}))
    seconds = sum(one["seconds"] for one in made)
    ended = max(one["ended"] for one in made)
    return [
        ("When", f"{moment(manifest['recorded']['began'])} to {moment(ended)}"),
        ("Work", f"{duration(seconds)} in {len(made)} shards, on {devices}"),
        ("Versions", versions),
    ]
