"""`workbench simulate`: tokens as particles; a run, a phase diagram or a staircase; no model is loaded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workbench.errors import SettingError

if TYPE_CHECKING:
    from probes.dynamics.experiments import PhaseDiagram, Run, Staircase

__all__ = ["configured", "simulate"]


def simulate(
    phase: Annotated[
        bool, typer.Option("--phase", help="Temperature x depth, with the theory's crossover.")
    ] = False,
    staircase: Annotated[
        bool, typer.Option("--staircase", help="Metastable clusters and their energy.")
    ] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="betas, tokens, d, seeds, kernel (sa, usa), time, step, seed, device; "
            "of a plain run also norm (post, pre, peri), causal, temperature.",
        ),
    ] = None,
    out: Annotated[
        list[Path] | None,
        typer.Option(help="File: a figure (.html .png .svg .pdf) or rows (.parquet .csv .json)."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON array of rows on stdout.")
    ] = False,
) -> None:
    """Simulate attention as moving particles, beside the closed forms of the theory."""
    from workbench.shown import WRITERS, destination

    experiment = configured(phase, staircase, settings or [])
    for path in out or []:
        destination(path, WRITERS)
    found = experiment()
    for path in out or []:
        found.save(path)
    if as_json:
        typer.echo(json.dumps(found.rows(), allow_nan=False))
    elif not out:
        last = found.to_frame().groupby(["beta", "seed"], as_index=False).last()
        typer.echo(f"{found!r}; what there is at the last time (all rows: --json, --out)")
        typer.echo(last.to_string(index=False, float_format="{:.4g}".format))


def configured(
    phase: bool, staircase: bool, settings: Sequence[str]
) -> PhaseDiagram | Run | Staircase:
    """The experiment asked for.

    Raises:
        SettingError: two experiments at once, or a setting that it refuses.
    """
    from probes.dynamics.experiments import PhaseDiagram, Run, Staircase
    from workbench.settings import assigned

    if phase and staircase:
        raise SettingError("--phase and --staircase are two experiments: give one of them")
    if phase:
        return assigned(PhaseDiagram, "simulate --phase", settings)
    if staircase:
        return assigned(Staircase, "simulate --staircase", settings)
    return assigned(Run, "simulate", settings)
