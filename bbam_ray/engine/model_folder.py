"""The folder of a trained model: weights in safetensors, everything else in JSON."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from bbam_ray.core.calibration import Calibration
from bbam_ray.engine.model_description import (
    CALIBRATION,
    CHECKSUM,
    CONFIG,
    ENCODER,
    FORMAT,
    LABELS,
    THRESHOLDS,
    TIMM_VERSION,
    TOKENIZER,
    WEIGHTS,
    ModelDescription,
    read_description,
    read_json,
    regular,
)
from bbam_ray.engine.trainer import Trainer
from bbam_ray.errors import UsageError, brief
from bbam_ray.files import atomic_folder
from bbam_ray.models import HubEncoder
from bbam_ray.pretrained_images import is_timm

__all__ = [
    "CONFIG",
    "ENCODER",
    "FORMAT",
    "LABELS",
    "THRESHOLDS",
    "TOKENIZER",
    "WEIGHTS",
    "ModelDescription",
    "calibration_json",
    "load_weights",
    "read_description",
    "read_thresholds",
    "read_weights",
    "save_model",
    "weights_bytes",
]

_NETWORK, _METHOD = "network.", "method."


def save_model(
    folder: Path,
    trainer: Trainer,
    thresholds: list[float],
    calibration: Calibration | None = None,
) -> None:
    """Write the averaged network, the scoring state of the method, and the configuration to build both.

    The files belong together, so they are written to a temporary folder that then replaces ``folder``.

    Args:
        folder: created, or replaced.
        trainer: at the end of an epoch.
        thresholds: (K,) on logits.
        calibration: of the logits; None = ``predict_proba`` is the sigmoid of the logits.
    """
    views, backbone = trainer.data.views, trainer.config.training.backbone
    contents: dict[str, Any] = {
        CONFIG: {
            "format": FORMAT,
            **trainer.config.flat(),
            "input_shape": list(trainer.data.input_shape),
            "input_mean": list(views.mean),
            "input_std": list(views.std),
            **({"input_vocabulary": views.vocabulary} if views.vocabulary else {}),
            **({TIMM_VERSION: version("timm")} if is_timm(backbone) else {}),
        },
        LABELS: list(trainer.data.label_names),
        THRESHOLDS: thresholds,
    }
    if calibration is not None:
        contents[CALIBRATION] = calibration_json(calibration)
    weights = weights_bytes(trainer.average.module.state_dict(), trainer.method.scoring_state())
    contents[CONFIG][CHECKSUM] = hashlib.sha256(weights).hexdigest()

    with atomic_folder(folder) as new:
        new.mkdir(parents=True)
        for name, content in contents.items():
            (new / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        for name, text in _text_files(trainer).items():
            (new / name).write_text(text, encoding="utf-8")
        (new / WEIGHTS).write_bytes(weights)


def weights_bytes(network: dict[str, Tensor], method: dict[str, Tensor]) -> bytes:
    """The content of ``model.safetensors``.

    As bytes: on a full disk safetensors raises its own kind of error, and it checks no checksum.

    Args:
        network: state of the network.
        method: scoring state of the method.
    """
    tensors = {f"{_NETWORK}{name}": tensor for name, tensor in network.items()}
    tensors |= {f"{_METHOD}{name}": tensor for name, tensor in method.items()}
    content: bytes = save({name: tensor.contiguous().cpu() for name, tensor in tensors.items()})
    return content


def calibration_json(calibration: Calibration) -> dict[str, list[float]]:
    """The content of ``calibration.json``."""
    return {name: part.tolist() for name, part in calibration._asdict().items()}


def _text_files(trainer: Trainer) -> dict[str, str]:
    """Additional files of a model of texts, by file name."""
    files = {}
    if content := trainer.data.views.tokenizer:
        files[TOKENIZER] = content
    if isinstance(encoder := trainer.model.backbone, HubEncoder):
        files[ENCODER] = encoder.architecture()
    return files


def read_weights(folder: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Read the state of the network and the scoring state of the method.

    Raises:
        UsageError: the weights are missing or damaged.
    """
    path = regular(folder / WEIGHTS)
    try:
        tensors = load_file(path)
        with path.open("rb") as file:
            checksum = hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, SafetensorError) as error:
        raise UsageError(
            f"{path}: cannot be read ({brief(error, 200)}); copy the model again"
        ) from None
    if (
        read_json(folder / CONFIG, dict).get(CHECKSUM, checksum) != checksum
    ):  # older models have none
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
    thresholds: list[float] = read_json(folder / THRESHOLDS, list)
    return thresholds
