"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "Adapter",
    "BatchSize",
    "Chat",
    "Corrupted",
    "Device",
    "Dtype",
    "Engine",
    "Foil",
    "Instruments",
    "Model",
    "OnePrompt",
    "PromptFile",
    "Revision",
    "Settings",
    "SettingsOfMany",
    "Subject",
    "Target",
    "TargetId",
    "TrustRemoteCode",
]

Model = Annotated[str, typer.Option(help="Hub name, local folder, or a bundled model.")]
Dtype = Annotated[
    str | None, typer.Option(help="float32, bfloat16, float64; as stored if not given.")
]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1, ..., or auto: spread over all GPUs.")
]
Engine = Annotated[str, typer.Option(help="Model engine: torch, transformer_lens or nnsight.")]
Adapter = Annotated[
    str | None, typer.Option(help="A LoRA over the model: a folder that PEFT wrote, or a hub name.")
]
Revision = Annotated[str | None, typer.Option(help="Revision of a hub model.")]
TrustRemoteCode = Annotated[bool, typer.Option(help="Run code that comes with the model.")]

OnePrompt = Annotated[str | None, typer.Option("--prompt", help="One prompt.")]
Chat = Annotated[
    Path | None, typer.Option(help="One chat: a JSON file, a list of {role, content} messages.")
]
PromptFile = Annotated[
    Path | None,
    typer.Option("--prompts", help="JSONL, CSV, TSV or text file; to measure, also made:NAME."),
]
Target = Annotated[str | None, typer.Option(help="A token, as text.")]
TargetId = Annotated[int | None, typer.Option(help="A token, as its exact id.")]
Foil = Annotated[str | None, typer.Option(help="A token to compare the target with.")]
Subject = Annotated[str | None, typer.Option(help="The words the prompt is about.")]
Corrupted = Annotated[
    str | None, typer.Option(help="A counterfactual prompt of as many tokens, to patch with.")
]

Instruments = Annotated[str, typer.Option(help="Names, comma-separated.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="A setting of the instrument."),
]
SettingsOfMany = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="INSTRUMENT.NAME=VALUE", help="A setting of an instrument."),
]
BatchSize = Annotated[int | None, typer.Option(help="The most prompts in a batch.")]
