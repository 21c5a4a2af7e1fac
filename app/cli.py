"""The command line: `workbench run`, `compare`, `report`, `fit`, `simulate`, `app`, `jobs`, `doctor`."""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec

import typer

from app import options
from app.simulate_command import simulate
from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    import workbench as wb

__all__ = ["cli", "main"]

cli = typer.Typer(
    name="workbench",
    help="Look inside transformer language models, layer by layer.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

FAILED = 2

P = ParamSpec("P")


def main() -> None:
    """Entry point of the command `workbench`."""
    cli()


def one_line_errors(command: Callable[P, None]) -> Callable[P, None]:
    """Print an error that a user can mend as one line on stderr and exit with 2."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except (WorkbenchError, OSError) as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(FAILED) from None

    return run


@cli.command()
@one_line_errors
def run(
    instrument: Annotated[str, typer.Argument(help="Its name, such as logit_lens.")],
    model: options.Model = "atlas",
    prompt: options.OnePrompt = None,
    chat: options.Chat = None,
    prompts: options.PromptFile = None,
    target: options.Target = None,
    target_id: options.TargetId = None,
    foil: options.Foil = None,
    subject: options.Subject = None,
    corrupted: options.Corrupted = None,
    settings: options.Settings = None,
    batch_size: options.BatchSize = None,
    dtype: options.Dtype = None,
    device: options.Device = None,
    engine: options.Engine = "torch",
    adapter: options.Adapter = None,
    revision: options.Revision = None,
    trust_remote_code: options.TrustRemoteCode = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON array of rows on stdout.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="File: .nc .parquet .csv .json, or a figure.")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print the cost and stop.")] = False,
) -> None:
    """Measure prompts with one instrument."""
    import workbench as wb
    from app.given import prompts_of
    from app.output import print_remarks, print_table, show_progress
    from workbench.results import Result
    from workbench.settings import configure
    from workbench.shown import destination

    configured = configure(instrument, settings or [])
    if not (configured.needs_prompts or prompt or chat or prompts):
        prompt = "."  # any will do
    chosen = prompts_of(prompt, chat, prompts, target, target_id, foil, subject, corrupted)
    if out is not None:
        destination(out, Result.writers)
    loaded = _load(
        model,
        dtype=dtype,
        device=device,
        engine=engine,
        adapter=adapter,
        revision=revision,
        trust_remote_code=trust_remote_code,
    )
    if plan:
        cost = wb.plan(loaded, chosen, [configured], batch_size=batch_size)
        typer.echo(json.dumps([dataclasses.asdict(cost)]) if as_json else cost)
        return
    (result,) = wb.measure(
        loaded, chosen, [configured], batch_size=batch_size, progress=show_progress
    )
    if out is not None:
        result.save(out)
    if as_json:
        typer.echo(json.dumps(result.rows(), ensure_ascii=False, allow_nan=False))
    if out is None and not as_json:
        print_table(result)
    else:
        print_remarks(result, err=True)


@cli.command()
@one_line_errors
def compare(
    base: Annotated[str, typer.Argument(help="Hub name, local folder, or a bundled model.")],
    instruments: options.Instruments,
    tuned: Annotated[str | None, typer.Argument(help="The other model, if not --adapter.")] = None,
    adapter: options.Adapter = None,
    prompt: options.OnePrompt = None,
    chat: options.Chat = None,
    prompts: options.PromptFile = None,
    target: options.Target = None,
    target_id: options.TargetId = None,
    foil: options.Foil = None,
    subject: options.Subject = None,
    corrupted: options.Corrupted = None,
    settings: options.SettingsOfMany = None,
    batch_size: options.BatchSize = None,
    dtype: options.Dtype = None,
    device: options.Device = None,
    trust_remote_code: options.TrustRemoteCode = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON array of rows on stdout.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="New folder for rows and figures.")] = None,
) -> None:
    """Measure the same prompts in a base and a fine-tuned model, or with and without an adapter."""
    import workbench as wb
    from app.compare_command import checked_folder, hand_over, pair
    from app.given import prompts_of
    from app.output import show_progress
    from app.report_command import configured

    chosen = configured(instruments, settings or [])
    asked = prompts_of(prompt, chat, prompts, target, target_id, foil, subject, corrupted)
    checked_folder(out)
    load = functools.partial(_load, dtype=dtype, device=device, trust_remote_code=trust_remote_code)
    models = pair(load, base, tuned, adapter)
    found = wb.compare(*models, asked, chosen, batch_size=batch_size, progress=show_progress)
    hand_over(found, out, as_json=as_json)


def _load(model: str, **options: Any) -> wb.Engine:
    from transformers.utils import logging

    import workbench as wb

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    return wb.load(model, **options)


@cli.command()
@one_line_errors
def report(
    prompts: Annotated[Path, typer.Argument(help="JSONL, CSV, TSV or text file.")],
    instruments: options.Instruments,
    out: Annotated[Path, typer.Option(help="Folder, new or of the same run.")],
    model: options.Model = "atlas",
    settings: options.SettingsOfMany = None,
    shard: Annotated[
        str, typer.Option(metavar="I/N", help="Every N-th shard from the I-th on.")
    ] = "1/1",
    shard_size: Annotated[int, typer.Option(help="Prompts in a shard.")] = 100,
    batch_size: options.BatchSize = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out bad lines of the file.")
    ] = False,
    plotlyjs: Annotated[str, typer.Option(help="inline (one file) or directory.")] = "inline",
    dtype: options.Dtype = None,
    device: options.Device = None,
    engine: options.Engine = "torch",
    adapter: options.Adapter = None,
    revision: options.Revision = None,
    trust_remote_code: options.TrustRemoteCode = False,
    as_json: Annotated[bool, typer.Option("--json", help="The summary as JSON.")] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Print the cost and stop.")] = False,
) -> None:
    """Measure a prompt file with instruments; the same command again goes on where it ended."""
    from app.report_command import Asked, configured, print_cost, run_report

    chosen = configured(instruments, settings or [])
    asked = Asked(prompts, chosen, shard_size, batch_size, skip_bad, as_json)
    load = functools.partial(
        _load,
        model,
        dtype=dtype,
        device=device,
        engine=engine,
        adapter=adapter,
        revision=revision,
        trust_remote_code=trust_remote_code,
    )
    if plan:
        print_cost(asked, load)
    elif not run_report(asked, load, out, shard=shard, plotlyjs=plotlyjs):
        raise typer.Exit(1)


@cli.command()
@one_line_errors
def fit(
    kind: Annotated[str, typer.Argument(help="tuned_lens, jacobian_lens or sae.")],
    out: Annotated[Path, typer.Option(help="File to make, .safetensors; of an sae a folder.")],
    text: Annotated[Path | None, typer.Option(help="Text file, cut into pieces.")] = None,
    prompts: options.PromptFile = None,
    model: options.Model = "atlas",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A setting of the fit."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from a stopped fit.")] = False,
    dtype: options.Dtype = None,
    device: options.Device = None,
    engine: options.Engine = "torch",
    adapter: options.Adapter = None,
    revision: options.Revision = None,
    trust_remote_code: options.TrustRemoteCode = False,
    as_json: Annotated[bool, typer.Option("--json", help="What was made as JSON.")] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Print the cost and stop.")] = False,
) -> None:
    """Fit a lens or an SAE of a model on a text or on prompts; stopped, it goes on with --resume."""
    from app.fit_command import Asked, configured, print_cost, run_fit

    asked = Asked(configured(kind, settings or []), text, prompts, as_json)
    load = functools.partial(
        _load,
        model,
        dtype=dtype,
        device=device,
        engine=engine,
        adapter=adapter,
        revision=revision,
        trust_remote_code=trust_remote_code,
    )
    if plan:
        print_cost(asked, load)
    elif not run_fit(asked, load, out, resume=resume):
        raise typer.Exit(1)


@cli.command()
@one_line_errors
def app(
    model: Annotated[
        list[str] | None, typer.Option(help="A model to offer; may be given again.")
    ] = None,
    model_root: Annotated[
        Path | None, typer.Option(help="Offer the model folders in this folder.")
    ] = None,
    lens_root: Annotated[
        Path | None,
        typer.Option(
            help="Offer the lenses, SAEs and saved probes in this folder; HOME/lenses if not given."
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8050,
    browser: Annotated[bool, typer.Option(help="Open a browser.")] = True,
    home: Annotated[
        Path | None, typer.Option(help="Folder of jobs and results; $WORKBENCH_HOME if not given.")
    ] = None,
    device: Annotated[
        list[str] | None, typer.Option(help="cpu, cuda, cuda:1, ...; one worker each.")
    ] = None,
    dtype: options.Dtype = None,
    trust_remote_code: Annotated[
        bool, typer.Option(help="Run code that comes with the models.")
    ] = False,
) -> None:
    """Read models layer by layer in a browser."""
    from app.launch import launch, offered

    launch(
        models=offered(model or [], model_root, dtype=dtype, trust_remote_code=trust_remote_code),
        home=home,
        lenses=lens_root,
        devices=device or [],
        host=host,
        port=port,
        browser=browser,
    )


@cli.command()
@one_line_errors
def doctor(
    model: Annotated[str | None, typer.Option(help="Check this model too.")] = None,
    dtype: options.Dtype = None,
    device: options.Device = None,
    engine: options.Engine = "torch",
    adapter: options.Adapter = None,
) -> None:
    """Say what is installed, what this machine has, and what holds or is refused on a model."""
    from app.doctor import diagnose, examine

    sound = diagnose(typer.echo)
    if model is not None:
        loaded = _load(model, dtype=dtype, device=device, adapter=adapter)
        sound &= examine(loaded, engine, typer.echo)
    if not sound:
        sys.exit(1)


@cli.command()
@one_line_errors
def jobs(
    home: Annotated[
        Path | None,
        typer.Option(help="Home folder of an app or a desk; the app's own if not given."),
    ] = None,
    cancel: Annotated[int | None, typer.Option(metavar="JOB", help="Cancel this job.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON array on stdout.")] = False,
) -> None:
    """List the newest jobs, or cancel one."""
    from app import jobs_command

    found = jobs_command.jobs(home) if cancel is None else jobs_command.cancel(home, cancel)
    typer.echo(jobs_command.as_json(found) if as_json else jobs_command.as_table(found))


cli.command()(one_line_errors(simulate))


if __name__ == "__main__":
    main()
