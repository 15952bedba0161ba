"""What a stored model is, without its weights: the JSON files of a model folder, read and checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from bbam_ray.config import RunConfig
from bbam_ray.core.calibration import Calibration
from bbam_ray.data import ViewSettings
from bbam_ray.data.formats.image_range import AUTO
from bbam_ray.documents import parse_json
from bbam_ray.errors import UsageError, brief, quoted
from bbam_ray.files import check_regular
from bbam_ray.methods import run_config

WEIGHTS, CONFIG, LABELS, THRESHOLDS = (
    "model.safetensors",
    "config.json",
    "labels.json",
    "thresholds.json",
)
TOKENIZER, ENCODER = "tokenizer.json", "encoder.json"  # models of texts only
CALIBRATION = "calibration.json"  # optional
ENSEMBLE, MEMBERS = "ensemble.json", "members"  # in place of the weights
FORMAT = 1  # increased when older versions would misread newer files
CHECKSUM, ENSEMBLE_CHECKSUM = "weights_sha256", "ensemble_sha256"


@dataclass(frozen=True)
class ModelDescription:
    """Everything about a stored model except its weights.

    Args:
        config: of the training run.
        input_shape: of one sample.
        views: how a sample becomes a network input.
        label_names: K names.
        thresholds: (K,) on logits.
        architecture: JSON description of a pretrained text encoder, if the model has one.
        calibration: p = sigmoid(slope z + offset) by label, if the model has one.
    """

    config: RunConfig
    input_shape: tuple[int, ...]
    views: ViewSettings
    label_names: tuple[str, ...]
    thresholds: tuple[float, ...]
    architecture: str | None = None
    calibration: Calibration | None = None

    @property
    def image_range(self) -> str:
        """The setting ``image_range`` of the training run, which holds for all images for the model."""
        return str(getattr(self.config.data, "image_range", AUTO))


def read_description(folder: Path) -> ModelDescription:
    """Read and check everything except the weights.

    Raises:
        UsageError: a file is missing, damaged, from a newer version, or inconsistent with the other files.
    """
    values = read_json(folder / CONFIG, dict)
    version = values.pop("format", 1)
    for checksum in (CHECKSUM, ENSEMBLE_CHECKSUM):
        values.pop(checksum, None)
    if version != FORMAT:
        raise UsageError(
            f"{folder / CONFIG}: format {brief(version)} is from a newer version of bbam-ray, and this "
            f"one reads {FORMAT}; update it"
        )
    names, thresholds = read_json(folder / LABELS, list), read_json(folder / THRESHOLDS, list)
    if len(thresholds) != len(names):
        raise UsageError(
            f"{folder}: {len(thresholds)} thresholds for {len(names)} labels; these files are from "
            "different models"
        )
    _check_labels(folder, names, thresholds)
    for entry in ("input_shape", "input_mean", "input_std"):
        if entry not in values:
            raise UsageError(
                f"{folder / CONFIG}: no entry '{entry}', which older versions did not write; train it "
                "again"
            )
    shape = _numbers(folder, values, "input_shape", int, lambda sides: len(sides) in (1, 3))
    channels = (1, shape[0])
    mean = _numbers(folder, values, "input_mean", float, lambda each: len(each) in channels)
    std = _numbers(
        folder, values, "input_std", float, lambda each: len(each) in channels and min(each) > 0
    )
    views, vocabulary = ViewSettings(mean, std), values.pop("input_vocabulary", 0)
    if type(vocabulary) is not int or not 0 <= vocabulary < 2**31:
        raise _wrong(folder, "input_vocabulary", vocabulary)
    if vocabulary:
        views = replace(views, vocabulary=vocabulary, tokenizer=_text(folder / TOKENIZER))
    config = run_config(values, str(folder / CONFIG))
    architecture = None
    if config.training.backbone == "transformer":
        architecture = _text(folder / ENCODER)
    calibration = _calibration(folder, len(names))
    return ModelDescription(
        config, shape, views, tuple(names), tuple(thresholds), architecture, calibration
    )


def _check_labels(folder: Path, names: list[Any], thresholds: list[Any]) -> None:
    """Raise a UsageError unless labels are distinct texts and thresholds are finite numbers."""
    bad = next((n for n in names if not isinstance(n, str) or not n), None)
    if bad is None:
        bad = next((n for n, count in Counter(names).items() if count > 1), None)
    if bad is not None or not names:
        raise UsageError(
            f"{folder / LABELS}: {quoted(bad)} is not a label, or is a duplicate; copy the model again"
        )
    for value in thresholds:
        if not _is_finite(value):
            raise UsageError(
                f"{folder / THRESHOLDS}: {quoted(value)} is not a threshold; copy the model again"
            )


def _calibration(folder: Path, labels: int) -> Calibration | None:
    """The content of ``calibration.json``; None without such a file."""
    path = folder / CALIBRATION
    if not path.exists():
        return None
    values = read_json(path, dict)
    parts = [values.get(name) for name in Calibration._fields]
    for name, part in zip(Calibration._fields, parts, strict=True):
        if not is_vector(part, labels, positive=name == "slope"):
            raise UsageError(
                f"{path}: '{name}' is not a list of {labels} {'positive ' * (name == 'slope')}numbers, "
                "one per label; copy the model again, or remove this file"
            )
    return Calibration(*(torch.tensor(part, dtype=torch.float64) for part in parts))


def is_vector(values: Any, length: int, *, positive: bool = False) -> bool:
    """Whether a JSON value is a list of so many numbers in the range of float32, all > 0 if required."""
    return (
        isinstance(values, list)
        and len(values) == length
        and all(_is_finite(value) and (value > 0 or not positive) for value in values)
    )


def _is_finite(value: Any) -> bool:
    """Whether a value is a number in the range of float32."""
    return type(value) in (int, float) and abs(value) < 3e38


def _numbers(
    folder: Path,
    values: dict[str, Any],
    entry: str,
    kind: type,
    fit: Callable[[tuple[Any, ...]], bool],
) -> tuple[Any, ...]:
    """A list of numbers from ``config.json``; integers must be at least 1."""
    stored = values.pop(entry)
    if isinstance(stored, list) and stored and all(map(_is_finite, stored)):
        numbers = tuple(map(kind, stored))
        if fit(numbers) and (kind is float or (numbers == tuple(stored) and min(numbers) >= 1)):
            return numbers
    raise _wrong(folder, entry, stored)


def _wrong(folder: Path, entry: str, value: Any) -> UsageError:
    return UsageError(
        f"{folder / CONFIG}: {entry} = {quoted(value)} is invalid; copy the model again"
    )


def regular(path: Path) -> Path:
    """The same path; a UsageError for a pipe or a device."""
    check_regular(path)
    return path


def _text(path: Path) -> str:
    try:
        return regular(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read ({error}); copy the model again") from None


def read_json(path: Path, kind: type) -> Any:
    """The content of a JSON file of a model: a dict or a list.

    Raises:
        UsageError: it is missing, damaged or of another kind.
    """
    try:
        content = parse_json(regular(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file; every model folder has one") from None
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{path}: cannot be read ({brief(error, 200)}); copy the model again"
        ) from None
    if not isinstance(content, kind):
        raise UsageError(
            f"{path}: expected a JSON {'object' if kind is dict else 'list'}; copy the model again"
        )
    return content
