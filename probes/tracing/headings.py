"""What a trace's figures say above themselves: which runs, which score, which windows."""

from __future__ import annotations

from html import escape
from typing import Any

import xarray as xr

from probes.causal.metrics import LEAST
from probes.tracing.grid import WINDOWED
from probes.tracing.reading import SITES, window_of
from workbench.figures import visible
from workbench.figures.reading import words
from workbench.results import Result, settings_of

__all__ = ["VALUES", "averaged_lines", "prompt_lines", "scored"]

VALUES = {"effect": "effect", "normalised": "normalised effect", "score": "score"}
RUNS = {
    "denoising": (
        "Denoising: one clean cell is put into the corrupted run, to see whether it suffices",
        "corrupted",
    ),
    "noising": (
        "Noising: one corrupted cell is put into the clean run, to see whether the clean one is needed",
        "clean",
    ),
}
METRICS = {
    "probability": "p({target})",
    "logprob": "log p({target})",
    "logit_difference": "logit({target}) − logit({foil})",
    "kl": "KL(clean || run)",
}
REPAIR = (
    "Components behind the cell repair or undo: effects of cells do not add up. The last token's state "
    "after the last block is the whole effect by construction."
)


def prompt_lines(one: xr.Dataset) -> list[str]:
    """The lines above one prompt's heat maps (see `probes.tracing.reading.of_prompt`)."""
    settings, first = settings_of(one), one.isel(position=0)
    clean, corrupted, total = (
        float(value) for value in (first["clean"], first["corrupted"].mean(), first["total"])
    )
    target, foil = (named(one, first, role) for role in ("target", "foil"))
    score = scored(settings, target, foil)
    numbers = f"{score}: clean {clean:.3g}, corrupted {corrupted:.3g}, total effect {total:+.3g}"
    unit = str(one["effect"].attrs["unit"])
    return [
        f"{_runs(settings)[0]}.",
        f"Corrupted by {corrupted_by(settings)}.",
        f"{numbers} {unit}. Effect of a cell: its score − the {_runs(settings)[1]} run's.",
        *_differs(one, first, target),
        *_about_0(str(settings["metric"]), total, unit),
        *_of_prompts(one, alone=True),
        *_windows(one, settings),
        REPAIR,
    ]


def _about_0(metric: str, total: float, unit: str) -> list[str]:
    """That there is next to nothing to trace, and so no shares."""
    least = LEAST.get(metric, 0.0)
    if abs(total) < least:
        return [
            f"The total effect is about 0 (below {least:g} {unit}): shares of it are not given."
        ]
    return []


def _of_prompts(data: xr.Dataset, *, alone: bool = False) -> list[str]:
    """What a result says of its prompts; with `alone`, where it has but one."""
    known = Result(data).provenance
    if alone and len(known.get("prompts", [])) != 1:
        return []
    return [f"{escape(remark, quote=False)}." for remark in known.get("remarks", [])]


def averaged_lines(
    data: xr.Dataset, found: xr.Dataset, twin: xr.Dataset | None = None
) -> list[str]:
    """The lines above the averages of several prompts (see `probes.tracing.averages.averaged`)."""
    settings = settings_of(data)
    first = ~data["prompt"].to_series().duplicated().to_numpy()
    total = _mean_total(data)
    unit = str(data["effect"].attrs["unit"])
    prompts, groups = found.attrs["prompts"], found.attrs["groups"]
    wrong = int((data["correct"].values[first] == 0).sum())
    flagged = f" In {wrong} of them the clean run's top token is not the target." if wrong else ""
    return [
        f"{_runs(settings)[0]}.",
        f"Corrupted by {corrupted_by(settings)}.",
        f"{scored(settings)}: mean total effect {total:+.3g} {unit}, n = {_counted(prompts, 'prompt')} in "
        f"{_counted(groups, 'group')}.{flagged}",
        "Line: mean indirect effect by token role."
        if prompts == 1
        else "Line: mean indirect effect by token role. Dark band: 95% bootstrap interval over groups. "
        "Light band: 80% of the prompts.",
        *_of_prompts(data),
        *_windows(data, settings),
        REPAIR,
        *(
            []
            if twin is None
            else [f"Untrained twin: mean total effect {_mean_total(twin):+.3g} {unit}."]
        ),
    ]


def scored(settings: dict[str, Any], target: str = "target", foil: str = "foil") -> str:
    """What the score is."""
    name = str(settings.get("metric"))
    return METRICS.get(name, name).format(target=target, foil=foil)


def named(data: xr.Dataset, place: xr.Dataset, role: str) -> str:
    """The target or the foil of a place, as text; the role's own name where it is not one token."""
    token = place[f"{role}_id"]
    return visible(str(words(data, token))) if token >= 0 else role


def corrupted_by(settings: dict[str, Any]) -> str:
    """How the corrupted run was made."""
    if settings.get("corruption") != "noise":
        return "another text in the prompt's place (token replacement)"
    draws, sizes = settings.get("samples"), settings.get("noise")
    return f"noise on the subject's embeddings ({sizes:g} σ, {draws} draws)"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _mean_total(data: xr.Dataset) -> float:
    """Over prompts, each once."""
    return float(data["total"].values[~data["prompt"].to_series().duplicated().to_numpy()].mean())


def _runs(settings: dict[str, Any]) -> tuple[str, str]:
    return RUNS[str(settings.get("direction"))]


def _windows(data: xr.Dataset, settings: dict[str, Any]) -> list[str]:
    """Which windows MLP and attention have, where there are any."""
    named = [SITES[site] for site in data["site"].values.tolist() if site in WINDOWED]
    width = settings.get("window")
    if not named or not width:
        return []
    who = " and ".join(named)
    if width == 1:
        return [f"{who}: one block at a time."]
    paper = " (the paper's text says [l−4, l+5])" if width == 10 else ""
    return [f"{who}: windows {window_of(width)}, placed as in the reference's code{paper}."]


def _differs(one: xr.Dataset, first: xr.Dataset, target: str) -> list[str]:
    if int(first["correct"]) != 0:
        return []
    top = visible(str(words(one, first["top_id"])))
    return [f"The clean run's own top token is {top}, not the target {target}."]
