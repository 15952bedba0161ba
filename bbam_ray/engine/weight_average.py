"""The average of the weights of several models ("soup"): one model at the cost of one network."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bbam_ray.core.calibration import Calibration
from bbam_ray.engine.ensemble_description import is_ensemble
from bbam_ray.engine.model_description import (
    CALIBRATION,
    CHECKSUM,
    CONFIG,
    ENCODER,
    LABELS,
    THRESHOLDS,
    TOKENIZER,
    WEIGHTS,
    ModelDescription,
    read_description,
    read_json,
)
from bbam_ray.engine.model_folder import calibration_json, read_weights, weights_bytes
from bbam_ray.errors import UsageError
from bbam_ray.files import atomic_folder

#: settings that decide what the weights mean, in addition to the options of the method
_ARCHITECTURE = ("method", "backbone", "hidden_dim", "feature_dim")


class ModelState(NamedTuple):
    """The tensors of a model.

    Args:
        network: state of the network.
        method: scoring state of the method.
    """

    network: dict[str, Tensor]
    method: dict[str, Tensor]


def average_weights(folders: Sequence[Path]) -> ModelState:
    """Mean of the network weights and of the scoring state of several models.

    A mean is a sensible model only if the models have the same initial weights and have stayed close,
    as fine-tuned models have; compare it with the ensemble on held-out samples before using it. Running
    statistics of batch norm are averaged too. Integer tensors (counters) are those of the first model.
    The sums are in float64.

    Args:
        folders: model folders of equal architecture, method and method options, for the same samples
            and labels.

    Raises:
        UsageError: no folders, an ensemble, a damaged model, or models that differ.

    Source: [Wortsman et al., Model soups, ICML 2022](https://proceedings.mlr.press/v162/wortsman22a.html).
    """
    if not folders:
        raise UsageError("averaging weights needs at least one model folder")
    if ensemble := next((folder for folder in folders if is_ensemble(folder)), None):
        raise UsageError(
            f"{ensemble}: is an ensemble, which has no weights of its own; give its members"
        )
    first = read_description(folders[0])
    for folder in folders[1:]:
        _check_same(folders[0], first, folder, read_description(folder))
    states = [ModelState(*read_weights(folder)) for folder in folders]
    for folder, state in zip(folders[1:], states[1:], strict=True):
        for one, other in zip(states[0], state, strict=True):
            if {k: (v.shape, v.dtype) for k, v in one.items()} != {
                k: (v.shape, v.dtype) for k, v in other.items()
            }:
                raise UsageError(
                    f"{folder / WEIGHTS}: its tensors differ from those of {folders[0]}; only models of "
                    "equal architecture can be averaged"
                )
    return ModelState(
        _mean([state.network for state in states]), _mean([state.method for state in states])
    )


def _check_same(
    first_folder: Path, first: ModelDescription, folder: Path, other: ModelDescription
) -> None:
    """Raise a UsageError unless two models have the same architecture, inputs and labels."""
    values = [description.config.training.model_dump() for description in (first, other)]
    pairs: dict[str, tuple[Any, Any]] = {
        name: (values[0][name], values[1][name]) for name in _ARCHITECTURE
    }
    options = [description.config.method.model_dump() for description in (first, other)]
    pairs |= {name: (value, options[1].get(name)) for name, value in options[0].items()}
    pairs |= {
        "input_shape": (first.input_shape, other.input_shape),
        "labels": (first.label_names, other.label_names),
        "normalisation": (first.views, other.views),
        "interpolation": (first.interpolation, other.interpolation),
        "encoder": (first.architecture, other.architecture),
    }
    if different := next((name for name, (a, b) in pairs.items() if a != b), None):
        raise UsageError(
            f"{folder}: '{different}' is not the same as in {first_folder}; only models of equal "
            "architecture, method and labels can be averaged"
        )


def _mean(states: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    result = {}
    for name, tensor in states[0].items():
        if tensor.is_floating_point():
            total = torch.stack([state[name].double() for state in states]).mean(0)
            result[name] = total.to(tensor.dtype)
        else:
            result[name] = tensor
    return result


def save_average(
    folder: Path,
    folders: Sequence[Path],
    thresholds: Sequence[float],
    calibration: Calibration | None = None,
) -> None:
    """Write the average of several models as an ordinary model folder; its settings are the first's.

    Args:
        folder: created, or replaced.
        folders: see ``average_weights``.
        thresholds: (K,) on logits.
        calibration: of the logits.

    Raises:
        UsageError: as in ``average_weights``.
    """
    weights = weights_bytes(*average_weights(folders))
    config = read_json(folders[0] / CONFIG, dict) | {CHECKSUM: hashlib.sha256(weights).hexdigest()}
    contents: dict[str, Any] = {CONFIG: config, THRESHOLDS: [float(value) for value in thresholds]}
    if calibration is not None:
        contents[CALIBRATION] = calibration_json(calibration)
    with atomic_folder(folder) as new:
        new.mkdir(parents=True)
        for name, content in contents.items():
            (new / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        for name in (LABELS, TOKENIZER, ENCODER):
            if (folders[0] / name).is_file():
                (new / name).write_bytes((folders[0] / name).read_bytes())
        (new / WEIGHTS).write_bytes(weights)
        read_description(new)  # the checks of every reader
