"""The folder of a trained model: weights in safetensors, everything else in JSON."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from bbam_ray.config import RunConfig
from bbam_ray.data import ViewSettings
from bbam_ray.documents import parse_json
from bbam_ray.engine.trainer import Trainer
from bbam_ray.errors import UsageError, brief, quoted
from bbam_ray.files import atomic_folder, check_regular
from bbam_ray.methods import run_config
from bbam_ray.models import HubEncoder

WEIGHTS, CONFIG, LABELS, THRESHOLDS = (
    "model.safetensors",
    "config.json",
    "labels.json",
    "thresholds.json",
)
TOKENIZER, ENCODER = "tokenizer.json", "encoder.json"  # models of texts only
FORMAT = 1  # increased when older versions would misread newer files
_NETWORK, _METHOD = "network.", "method."
_CHECKSUM = "weights_sha256"


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
    """

    config: RunConfig
    input_shape: tuple[int, ...]
    views: ViewSettings
    label_names: tuple[str, ...]
    thresholds: tuple[float, ...]
    architecture: str | None = None


def save_model(folder: Path, trainer: Trainer, thresholds: list[float]) -> None:
    """Write the averaged network, the scoring state of the method, and the configuration to build both.

    The files belong together, so they are written to a temporary folder that then replaces ``folder``.

    Args:
        folder: created, or replaced.
        trainer: at the end of an epoch.
        thresholds: (K,) on logits.
    """
    views = trainer.data.views
    contents: dict[str, Any] = {
        CONFIG: {
            "format": FORMAT,
            **trainer.config.flat(),
            "input_shape": list(trainer.data.input_shape),
            "input_mean": list(views.mean),
            "input_std": list(views.std),
            **({"input_vocabulary": views.vocabulary} if views.vocabulary else {}),
        },
        LABELS: list(trainer.data.label_names),
        THRESHOLDS: thresholds,
    }
    tensors = {f"{_NETWORK}{k}": v for k, v in trainer.average.module.state_dict().items()}
    tensors |= {f"{_METHOD}{k}": v for k, v in trainer.method.scoring_state().items()}
    # As bytes: on a full disk safetensors raises its own kind of error, and it checks no checksum.
    weights = save({k: v.contiguous().cpu() for k, v in tensors.items()})
    contents[CONFIG][_CHECKSUM] = hashlib.sha256(weights).hexdigest()

    with atomic_folder(folder) as new:
        new.mkdir(parents=True)
        for name, content in contents.items():
            (new / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        for name, text in _text_files(trainer).items():
            (new / name).write_text(text, encoding="utf-8")
        (new / WEIGHTS).write_bytes(weights)


def _text_files(trainer: Trainer) -> dict[str, str]:
    """Additional files of a model of texts, by file name."""
    files = {}
    if content := trainer.data.views.tokenizer:
        files[TOKENIZER] = content
    if isinstance(encoder := trainer.model.backbone, HubEncoder):
        files[ENCODER] = encoder.architecture()
    return files


def read_description(folder: Path) -> ModelDescription:
    """Read and check everything except the weights.

    Raises:
        UsageError: a file is missing, damaged, from a newer version, or inconsistent with the other files.
    """
    values = _json(folder / CONFIG, dict)
    version = values.pop("format", 1)
    values.pop(_CHECKSUM, None)
    if version != FORMAT:
        raise UsageError(
            f"{folder / CONFIG}: format {brief(version)} is from a newer version of bbam-ray, and this "
            f"one reads {FORMAT}; update it"
        )
    names, thresholds = _json(folder / LABELS, list), _json(folder / THRESHOLDS, list)
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
    return ModelDescription(config, shape, views, tuple(names), tuple(thresholds), architecture)


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


def _regular(path: Path) -> Path:
    check_regular(path)
    return path


def _text(path: Path) -> str:
    try:
        return _regular(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read ({error}); copy the model again") from None


def _json(path: Path, kind: type) -> Any:
    try:
        content = parse_json(_regular(path).read_text(encoding="utf-8"))
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


def read_weights(folder: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Read the state of the network and the scoring state of the method.

    Raises:
        UsageError: the weights are missing or damaged.
    """
    path = _regular(folder / WEIGHTS)
    try:
        tensors = load_file(path)
        with path.open("rb") as file:
            checksum = hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, SafetensorError) as error:
        raise UsageError(
            f"{path}: cannot be read ({brief(error, 200)}); copy the model again"
        ) from None
    if _json(folder / CONFIG, dict).get(_CHECKSUM, checksum) != checksum:  # older models have none
        raise UsageError(
            f"{path}: not the weights that were saved here (their checksum differs); copy the model "
            "again"
        )

    def part(prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    return part(_NETWORK), part(_METHOD)


def load_weights(folder: Path, trainer: Trainer) -> None:
    """Load saved weights and scoring state into a trainer with the same configuration."""
    network, method = read_weights(folder)
    trainer.average.module.load_state_dict(network)
    trainer.method.load_scoring_state(method)


def read_thresholds(folder: Path) -> list[float]:
    """Thresholds (K,) on logits that were saved with a model."""
    thresholds: list[float] = _json(folder / THRESHOLDS, list)
    return thresholds
