"""``bbam-ray export``: a trained model as a folder that can be handed over."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from bbam_ray.cli import options as shared
from bbam_ray.errors import EXIT_FAILED, UsageError


class Format(StrEnum):
    """What is written beside ``model.safetensors``."""

    onnx = "onnx"
    torch_export = "torch.export"


def export(
    model: Annotated[Path, typer.Option(help="Folder of a model, a run, or a confirmed study.")],
    output: Annotated[Path, typer.Option(help="New folder.")],
    formats: Annotated[
        list[Format] | None, typer.Option("--format", help="Also write this; repeatable.")
    ] = None,
    input_: Annotated[
        Path | None,
        typer.Option("--input", help="Samples to check with; default: the model's training data."),
    ] = None,
    license_: Annotated[
        str | None, typer.Option("--license", help="Of model and data, for the model card.")
    ] = None,
    json_: shared.Json = False,
) -> int:
    """Write a folder with the model and its card; every file is checked against the original."""
    from bbam_ray.engine.export import (
        CONTENT,
        ONNX,
        PROGRAM,
        ExportError,
        export_model,
        needs,
        real_inputs,
    )
    from bbam_ray.engine.model import load_model
    from bbam_ray.engine.model_folder import CONFIG
    from bbam_ray.files import atomic_folder
    from bbam_ray.report.model_card import find_origin, model_card
    from bbam_ray.results.remote import check_local

    console = Console(stderr=json_, soft_wrap=True, highlight=False)
    names = {Format.onnx: ONNX, Format.torch_export: PROGRAM}
    wanted = [names[form] for form in dict.fromkeys(formats or [])]
    for name in wanted:
        needs(name)
    check_local("--output", output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UsageError(f"--output {output}: exists already; give another name or remove it")
    loaded = load_model(model, "cpu")
    samples = real_inputs(loaded) if input_ is None else _samples(input_, loaded)
    origin = find_origin(loaded.folder)
    settings = json.loads((loaded.folder / CONFIG).read_text(encoding="utf-8"))
    differences: dict[str, float] = {}

    def write(folder: Path) -> None:
        folder.mkdir(parents=True)
        differences.update(export_model(loaded, folder, wanted, samples))
        files = {name: what for name, what in CONTENT.items() if (folder / name).is_file()}
        card = model_card(settings, loaded.label_names, origin, files, license_)
        (folder / "README.md").write_text(card, encoding="utf-8")

    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        with atomic_folder(output) as new:
            write(new)
    except ExportError as error:
        console.print(f"error: {error}; nothing was written", markup=False)
        return EXIT_FAILED
    if json_:
        typer.echo(json.dumps({"output": str(output), "differences": differences}))
        return 0
    for name, difference in differences.items():
        console.print(
            f"{name}: logits of {len(samples)} real samples differ by at most {difference:.2g}",
            markup=False,
        )
    console.print(f"model and card: {output}", markup=False)
    return 0


def _samples(source: Path, model: Any) -> Any:
    """The first good samples of a file or folder."""
    from bbam_ray.data.prediction.inputs import find_pieces

    for piece in find_pieces(source, model.input_shape, model.label_names, model.takes_texts):
        for batch in piece.batches(64):
            good = [row for row, problem in enumerate(batch.problems) if problem is None]
            if good:
                return model.stored([batch.inputs[row] for row in good])
    raise UsageError(f"--input {source}: no sample in it can be read")
