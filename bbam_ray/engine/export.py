"""Export: a self-contained model folder, optionally with the model in the formats of other runtimes."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bbam_ray.engine.ensemble_description import is_ensemble
from bbam_ray.engine.model import Model
from bbam_ray.engine.model_description import (
    CALIBRATION,
    CONFIG,
    ENCODER,
    ENSEMBLE,
    LABELS,
    MEMBERS,
    THRESHOLDS,
    TOKENIZER,
    WEIGHTS,
)
from bbam_ray.engine.task import load_part
from bbam_ray.errors import UsageError
from bbam_ray.optional import needed

ONNX, PROGRAM = "model.onnx", "model.pt2"
#: largest accepted difference of a logit from that of the original, by file
TOLERANCE = {WEIGHTS: 1e-5, ENSEMBLE: 1e-5, ONNX: 1e-4, PROGRAM: 1e-4}
CONTENT = {
    WEIGHTS: "weights, and the state that the method needs for scoring",
    ENSEMBLE: "weight of each member in `members/`, and mean and standard deviation of its logits",
    CONFIG: "architecture, settings and normalisation",
    LABELS: "names of the labels, in the order of the scores",
    THRESHOLDS: "one threshold per label, on logits",
    CALIBRATION: "slope and offset per label: probability = sigmoid(slope * logit + offset)",
    TOKENIZER: "turns texts into tokens; read by `tokenizers.Tokenizer.from_file`",
    ENCODER: "architecture of the pretrained encoder",
    ONNX: "ONNX: `inputs` (batch, ...) float32, pixels 0 to 255 or features, or int32 tokens "
    "(-1 = absent), to `logits` (batch, labels)",
    PROGRAM: "the same model for `torch.export.load`",
}
_CHECKED = 64  # real samples that every file is checked with


def _any_batch(model: Model) -> Any:
    """The dynamic dimensions of the inputs: the number of samples and, for texts, their length."""
    batch = {0: torch.export.Dim("batch", min=1)}
    if model.takes_texts:
        batch[1] = torch.export.Dim("length", min=2, max=model.input_shape[0])
    return (batch,)


class ExportError(RuntimeError):
    """The scores of an exported model differ from those of the original."""


def needs(file: str) -> None:
    """Raise a UsageError if a package that a file format needs is not installed."""
    if file != ONNX:
        return
    for name in ("onnx", "onnxscript", "onnxruntime"):
        needed(name, "onnx", "--format onnx")


def real_inputs(model: Model) -> np.ndarray:
    """Up to 64 training samples of the model's data set, without their labels.

    Raises:
        UsageError: the data set is not available, or its samples have another shape now.
    """
    try:
        inputs = load_part(model.description.config, "train").inputs
    except UsageError as error:
        raise UsageError(f"{error}; or give samples to check the export with --input") from None
    if inputs.shape[1:] != model.input_shape:
        raise UsageError(
            f"{model.folder}: the data set has samples of shape {inputs.shape[1:]} now, the model takes "
            f"{model.input_shape}; give samples to check the export with --input"
        )
    return np.asarray(inputs[np.arange(min(_CHECKED, len(inputs)))])


def export_model(
    model: Model, output: Path, formats: list[str], samples: np.ndarray
) -> dict[str, float]:
    """Write the model to a new folder, and check every file against the original.

    Args:
        model: the original.
        output: an empty folder.
        formats: further files to write: ``ONNX``, ``PROGRAM``.
        samples: (N, ...) real inputs for the check.

    Returns:
        The largest difference of a logit from that of the original, by file.

    Raises:
        ExportError: a difference is larger than ``TOLERANCE``.
    """
    _copy(model.folder, output)
    stored = WEIGHTS
    if is_ensemble(model.folder):
        stored = ENSEMBLE
        shutil.copyfile(model.folder / ENSEMBLE, output / ENSEMBLE)
        for folder in model.member_folders:
            (output / MEMBERS / folder.name).mkdir(parents=True)
            _copy(folder, output / MEMBERS / folder.name)
    expected = model.logits(samples)
    makers = {ONNX: _onnx, PROGRAM: _program}
    logits = {stored: Model(output, "cpu").logits(samples)}
    inputs = torch.from_numpy(np.ascontiguousarray(samples))  # exported programs fix the strides
    if not model.takes_texts:
        inputs = inputs.float()
    for name in formats:
        plain = Model(output, "cpu")
        plain.module.to(memory_format=torch.contiguous_format)  # the only layout of the formats
        logits[name] = makers[name](plain, output / name, inputs)
    differences = {name: float(np.abs(z - expected).max()) for name, z in logits.items()}
    for name, difference in differences.items():
        if not difference <= TOLERANCE[name]:
            raise ExportError(
                f"{name}: a logit differs from the original's by {difference:.2g}, more than "
                f"{TOLERANCE[name]:g}"
            )
    return differences


def _copy(folder: Path, output: Path) -> None:
    """Copy the files of one model, without paths of this machine."""
    for name in (WEIGHTS, LABELS, THRESHOLDS, CALIBRATION, TOKENIZER, ENCODER):
        if (folder / name).is_file():
            shutil.copyfile(folder / name, output / name)
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    config["data_dir"] = None
    (output / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _program(model: Model, path: Path, inputs: Tensor) -> np.ndarray:
    with torch.no_grad():
        program = torch.export.export(model.module, (inputs,), dynamic_shapes=_any_batch(model))
        torch.export.save(program, path)
        return _by_sizes(lambda x: torch.export.load(path).module()(x).numpy(), inputs)


def _onnx(model: Model, path: Path, inputs: Tensor) -> np.ndarray:
    import onnxruntime

    with warnings.catch_warnings():
        # The exporter of torch calls deprecated functions of torch and of onnxscript.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model.module,
            (inputs,),
            path,
            dynamo=True,
            external_data=False,
            verbose=False,
            input_names=["inputs"],
            output_names=["logits"],
            dynamic_shapes=_any_batch(model),
        )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return _by_sizes(lambda x: session.run(None, {"inputs": x.numpy()})[0], inputs)


def _by_sizes(score: Callable[[Tensor], np.ndarray], inputs: Tensor) -> np.ndarray:
    """Scores in a batch of one and a batch of the rest, to check that the batch size does not matter."""
    parts = [score(inputs[:1])] + ([score(inputs[1:])] if len(inputs) > 1 else [])
    return np.concatenate(parts)
