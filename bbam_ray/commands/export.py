"""A trained model as a folder of its own, with a model card, checked against the original."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bbam_ray.data.prediction.inputs import find_chunks
from bbam_ray.engine.export import (
    CONTENT,
    ONNX,
    PROGRAM,
    ExportError,
    export_model,
    needs,
    real_inputs,
)
from bbam_ray.engine.model import Model, load_model
from bbam_ray.engine.model_folder import CONFIG
from bbam_ray.errors import UsageError, nearest
from bbam_ray.files import atomic_folder
from bbam_ray.report.model_card import find_origin, model_card
from bbam_ray.results.remote import check_local

__all__ = ["FORMATS", "ExportError", "ExportedModel", "export"]

#: file that each further format adds to the folder
FORMATS = {"onnx": ONNX, "torch.export": PROGRAM}
_SAMPLES = 64  # samples of --input that every file is checked with


@dataclass(frozen=True)
class ExportedModel:
    """A finished export.

    Args:
        output: the folder that was written.
        differences: by file, the largest difference of a logit from the original's.
        samples: real samples that the files were checked with.
        networks: number of networks that score a sample, which is the cost of a prediction.
    """

    output: Path
    differences: dict[str, float]
    samples: int
    networks: int = 1


def export(
    model: Path | str,
    output: Path | str,
    *,
    formats: Sequence[str] = (),
    inputs: Path | str | None = None,
    license: str | None = None,
) -> ExportedModel:
    """Write a folder with the model and its card, and check every file against the original.

    Args:
        model: folder of a model, a run, or a confirmed study.
        output: new folder.
        formats: further formats, of ``FORMATS``.
        inputs: samples to check with, as for ``predict``; default: the model's training data.
        license: of model and data, for the model card.

    Raises:
        UsageError: no usable model or samples, an output that exists, or a missing package.
        ExportError: an exported file gives other scores than the original; nothing was written.
    """
    files = _files(formats)
    output = Path(output)
    check_local("--output", output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UsageError(f"--output {output}: exists already; give another name or remove it")
    loaded = load_model(Path(model), "cpu")
    samples = real_inputs(loaded) if inputs is None else _first_samples(Path(inputs), loaded)
    origin = find_origin(loaded.folder)
    settings = json.loads((loaded.folder / CONFIG).read_text(encoding="utf-8"))
    with atomic_folder(output) as folder:
        folder.mkdir(parents=True)
        differences = export_model(loaded, folder, files, samples)
        content = {name: text for name, text in CONTENT.items() if (folder / name).is_file()}
        card = model_card(
            settings,
            loaded.label_names,
            origin,
            content,
            license,
            networks=loaded.networks,
            calibrated=loaded.is_calibrated,
        )
        (folder / "README.md").write_text(card, encoding="utf-8")
    return ExportedModel(output, differences, len(samples), loaded.networks)


def _files(formats: Sequence[str]) -> list[str]:
    """The files that the formats add, each once; the packages that write them are installed."""
    files = []
    for name in dict.fromkeys(formats):
        if name not in FORMATS:
            raise UsageError(f"--format {name}: unknown; {nearest(name, FORMATS)}")
        needs(FORMATS[name])
        files.append(FORMATS[name])
    return files


def _first_samples(source: Path, model: Model) -> np.ndarray:
    """The first readable samples of a file or folder, as the model stores them."""
    for chunk in find_chunks(
        source,
        model.input_shape,
        model.label_names,
        model.takes_texts,
        model.description.image_range,
    ):
        for batch in chunk.batches(_SAMPLES):
            good = [row for row, problem in enumerate(batch.problems) if problem is None]
            if good:
                return model.stored([batch.inputs[row] for row in good])
    raise UsageError(f"--input {source}: no sample in it can be read")
