"""``bbam-ray export``: a trained model as a folder of its own."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bbam_ray.cli import options as shared
from bbam_ray.errors import EXIT_FAILED


class Format(StrEnum):
    """What is written in addition to ``model.safetensors``; see ``commands.export.FORMATS``."""

    onnx = "onnx"
    torch_export = "torch.export"


def export(
    model: Annotated[Path, typer.Option(help="Folder of a model, a run, or a confirmed study.")],
    output: Annotated[Path, typer.Option(help="New folder.")],
    formats: Annotated[
        list[Format] | None, typer.Option("--format", help="Add this format; repeatable.")
    ] = None,
    input_: Annotated[
        Path | None,
        typer.Option("--input", help="Samples to check with; default: the model's training data."),
    ] = None,
    license_: Annotated[
        str | None, typer.Option("--license", help="License of model and data, for the model card.")
    ] = None,
    json_: shared.Json = False,
) -> int:
    """Write a folder with the model and its card; every file is checked against the original."""
    from bbam_ray.commands import export as command

    console = Console(stderr=json_, soft_wrap=True, highlight=False)
    try:
        result = command.export(
            model,
            output,
            formats=[form.value for form in formats or []],
            inputs=input_,
            license=license_,
        )
    except command.ExportError as error:
        console.print(f"error: {error}; nothing was written", markup=False)
        return EXIT_FAILED
    if json_:
        content = {"output": str(output), "differences": result.differences}
        typer.echo(json.dumps(content | {"networks": result.networks}))
        return 0
    for name, difference in result.differences.items():
        console.print(
            f"{name}: checked with {result.samples} samples; logits differ by at most {difference:.2g}",
            markup=False,
        )
    cost = f"{result.networks} network" + "s" * (result.networks > 1)
    console.print(f"model and card: {output}; {cost} per prediction", markup=False)
    return 0
