"""What a trained fold of a trial yields: out-of-fold scores, and models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from bbam_ray import distributed
from bbam_ray.engine.kept_weights import KeptWeights, map_standard_error
from bbam_ray.engine.model_folder import save_model
from bbam_ray.engine.trainer import Trainer
from bbam_ray.files import atomic_folder

Files = dict[str, bytes]


@dataclass(frozen=True)
class FoldWeights:
    """Weights of a fold that may be kept: of the last epoch, the end of the warm-up or the best epoch.

    Args:
        epoch: from 1.
        logits: (N_v, K) float32 out-of-fold scores of the validation samples.
        files: of the model folder; empty if models are not needed.
        standard_error: of val_map, from a bootstrap over the validation samples.
    """

    epoch: int
    logits: np.ndarray
    files: Files
    standard_error: float


@dataclass(frozen=True)
class FoldResult:
    """What a trained fold yields.

    Args:
        fold: from 0.
        rows: (N_v,) row indices of its validation samples in the training part.
        labels: (N_v, K) uint8, their labels.
        weights: by phase: "last", and "warmup" or "best" if those may be kept instead.
    """

    fold: int
    rows: np.ndarray
    labels: np.ndarray
    weights: Mapping[str, FoldWeights]


def fold_result(trainer: Trainer, *, with_models: bool) -> FoldResult | None:
    """The result of a trained fold; None on every rank but the first.

    Args:
        trainer: after its last epoch, with validation samples.
        with_models: include the files of the models.
    """
    if distributed.rank():
        return None
    data = trainer.data
    weights = {"last": _weights(trainer, None, with_models)}
    fallback = trainer.weight_choice.fallback
    if fallback is not None and fallback.epoch < trainer.epoch:
        phase = "best" if trainer.config.training.keep_rule == "best" else "warmup"
        weights[phase] = _weights(trainer, fallback, with_models)
    labels = data.validation_labels.numpy().astype(np.uint8)
    return FoldResult(trainer.config.training.fold, data.validation, labels, weights)


def _weights(trainer: Trainer, stored: KeptWeights | None, with_models: bool) -> FoldWeights:
    logits = trainer.weight_choice.last_logits if stored is None else stored.logits
    files: Files = {}
    if with_models:
        with TemporaryDirectory(prefix="bbam-ray-") as scratch, trainer.using(stored):
            folder = Path(scratch) / "model"
            save_model(folder, trainer, [0.0] * len(trainer.data.label_names))
            files = files_of(folder)
    error = map_standard_error(logits, trainer.data.validation_labels.to(logits.device))
    epoch = trainer.epoch if stored is None else stored.epoch
    return FoldWeights(epoch, logits.float().cpu().numpy(), files, error)


def without_files(result: FoldResult) -> FoldResult:
    """A fold result without the files of its models."""
    weights = {phase: replace(each, files={}) for phase, each in result.weights.items()}
    return replace(result, weights=weights)


def files_of(folder: Path) -> Files:
    """Content of all files in a folder and its subfolders, by relative path."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def write_files(files: Files, folder: Path) -> None:
    """Write files to a folder, the reverse of ``files_of``."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def write_folder(files: Files, folder: Path) -> None:
    """Write files to a folder that appears, or is replaced, as a whole."""
    with atomic_folder(folder) as new:
        new.mkdir(parents=True)
        write_files(files, new)
