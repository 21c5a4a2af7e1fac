"""The command line: `workbench run`, `report`, `app`, `jobs`, `doctor`."""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec

import typer

from workbench.errors import PromptError, SettingError, WorkbenchError

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

ModelOption = Annotated[str, typer.Option(help="Hub name, local folder, or a bundled model.")]
DtypeOption = Annotated[
    str | None, typer.Option(help="float32, bfloat16, float64; as stored if not given.")
]
DeviceOption = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...")]
EngineOption = Annotated[str, typer.Option(help="Model engine.")]

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
    model: ModelOption = "atlas",
    prompt: Annotated[str | None, typer.Option(help="One prompt.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="JSONL, CSV, TSV or text file.")] = None,
    target: Annotated[str | None, typer.Option(help="A token, as text.")] = None,
    target_id: Annotated[int | None, typer.Option(help="A token, as its exact id.")] = None,
    foil: Annotated[str | None, typer.Option(help="A token to compare the target with.")] = None,
    subject: Annotated[str | None, typer.Option(help="The words the prompt is about.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A setting of the instrument."),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="The most prompts in a batch.")] = None,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    engine: EngineOption = "torch",
    revision: Annotated[str | None, typer.Option(help="Revision of a hub model.")] = None,
    trust_remote_code: Annotated[
        bool, typer.Option(help="Run code that comes with the model.")
    ] = False,
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
    from app.output import print_result, show_progress
    from workbench.results import checked_destination
    from workbench.settings import configure

    configured = configure(instrument, settings or [])
    chosen = _prompts(prompt, prompts, target, target_id, foil, subject)
    if out is not None:
        checked_destination(out)
    loaded = _load(
        model,
        dtype=dtype,
        device=device,
        engine=engine,
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
    elif out is None:
        print_result(result)


def _prompts(
    prompt: str | None,
    file: Path | None,
    target: str | None,
    target_id: int | None,
    foil: str | None,
    subject: str | None,
) -> wb.PromptSet:
    import workbench as wb

    if (prompt is None) == (file is None):
        raise PromptError("expected either --prompt TEXT or --prompts FILE")
    if target is not None and target_id is not None:
        raise SettingError("expected either --target TEXT or --target-id N, not both")
    goal = target if target_id is None else target_id
    if prompt is not None:
        return wb.PromptSet.of(wb.Prompt(prompt, target=goal, foil=foil, subject=subject))
    given = {"--target": goal, "--foil": foil, "--subject": subject}
    for option, value in given.items():
        if value is not None:
            raise SettingError(
                f"{option} belongs to --prompt: in a prompts file it stands in each line"
            )
    return wb.PromptSet.read(str(file))


def _load(model: str, **options: Any) -> wb.TorchModel:
    from transformers.utils import logging

    import workbench as wb

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    return wb.load(model, **options)


@cli.command()
@one_line_errors
def report(
    prompts: Annotated[Path, typer.Argument(help="JSONL, CSV, TSV or text file.")],
    instruments: Annotated[str, typer.Option(help="Names, comma-separated.")],
    out: Annotated[Path, typer.Option(help="Folder, new or of the same run.")],
    model: ModelOption = "atlas",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="INSTRUMENT.NAME=VALUE", help="A setting of an instrument."),
    ] = None,
    shard: Annotated[
        str, typer.Option(metavar="I/N", help="Every N-th shard from the I-th on.")
    ] = "1/1",
    shard_size: Annotated[int, typer.Option(help="Prompts in a shard.")] = 100,
    batch_size: Annotated[int | None, typer.Option(help="The most prompts in a batch.")] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out bad lines of the file.")
    ] = False,
    plotlyjs: Annotated[str, typer.Option(help="inline (one file) or directory.")] = "inline",
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    engine: EngineOption = "torch",
    revision: Annotated[str | None, typer.Option(help="Revision of a hub model.")] = None,
    trust_remote_code: Annotated[
        bool, typer.Option(help="Run code that comes with the model.")
    ] = False,
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
        revision=revision,
        trust_remote_code=trust_remote_code,
    )
    if plan:
        print_cost(asked, load)
    elif not run_report(asked, load, out, shard=shard, plotlyjs=plotlyjs):
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
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8050,
    browser: Annotated[bool, typer.Option(help="Open a browser.")] = True,
    home: Annotated[
        Path | None, typer.Option(help="Folder of jobs and results; $WORKBENCH_HOME if not given.")
    ] = None,
    device: Annotated[
        list[str] | None, typer.Option(help="cpu, cuda, cuda:1, ...; one worker each.")
    ] = None,
    dtype: DtypeOption = None,
    trust_remote_code: Annotated[
        bool, typer.Option(help="Run code that comes with the models.")
    ] = False,
) -> None:
    """Read models layer by layer in a browser."""
    from app.launch import launch, offered

    launch(
        models=offered(model or [], model_root, dtype=dtype, trust_remote_code=trust_remote_code),
        home=home,
        devices=device or [],
        host=host,
        port=port,
        browser=browser,
    )


@cli.command()
@one_line_errors
def doctor(
    model: Annotated[str | None, typer.Option(help="Check this model too.")] = None,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
) -> None:
    """Say what is installed, what this machine has, and what a model is refused."""
    from app.doctor import diagnose, examine

    sound = diagnose(typer.echo)
    if model is not None:
        sound &= examine(_load(model, dtype=dtype, device=device), typer.echo)
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


if __name__ == "__main__":
    main()
