"""A trained model for prediction: scores of new samples, without the training data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from bbam_ray.data.cache.token_rows import trimmed
from bbam_ray.engine.ensemble_description import is_ensemble, read_ensemble
from bbam_ray.engine.ensemble_folder import build_ensemble_module
from bbam_ray.engine.model_description import (
    ENSEMBLE,
    WEIGHTS,
    ModelDescription,
    read_description,
)
from bbam_ray.engine.scoring import EnsembleModule, ScoringModule, build_scoring_module
from bbam_ray.engine.stored_samples import StoredSamples
from bbam_ray.errors import UsageError
from bbam_ray.results.remote import local_copy
from bbam_ray.results.summary import confirmed_folder

__all__ = ["Model", "find_model", "load_model", "probabilities"]


class Model:
    """Predicts scores and labels of new samples, with one network or an ensemble of several.

    Args:
        folder: model folder, with ``model.safetensors`` or ``ensemble.json``, and its other files.
        device: "auto" uses a GPU if one is available.

    Raises:
        UsageError: files that are missing, damaged, not finite or from different models.
    """

    def __init__(self, folder: Path | str, device: str = "auto") -> None:
        self.folder = Path(folder)
        self.description: ModelDescription = read_description(self.folder)
        has_gpu = torch.cuda.is_available()
        self.device = torch.device(("cuda" if has_gpu else "cpu") if device == "auto" else device)
        #: number of networks that score a sample, which is the cost of a prediction
        self.networks = 1
        #: model folders of an ensemble; empty for a single model
        self.member_folders: list[Path] = []
        self.module: ScoringModule | EnsembleModule
        if is_ensemble(self.folder):
            members = read_ensemble(self.folder, self.description)
            self.networks = len(members)
            self.member_folders = [member.folder for member in members]
            self.module = build_ensemble_module(members, self.device)
        else:
            self.module = build_scoring_module(self.folder, self.description, self.device)
        self._samples = StoredSamples(self.description)

    @property
    def takes_texts(self) -> bool:
        return self.description.views.vocabulary > 0

    @property
    def label_names(self) -> list[str]:
        """K names, in the order of all columns."""
        return list(self.description.label_names)

    @property
    def thresholds(self) -> np.ndarray:
        """(K,) float32, on logits; tuned on validation data, never on the test part."""
        return np.array(self.description.thresholds, dtype=np.float32)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample: (C, H, W), (F,), or (L,) for texts of at most L tokens."""
        return self.description.input_shape

    @property
    def interpolation(self) -> str:
        """How images of other sizes are resized: "bilinear" or "bicubic"."""
        return self.description.interpolation

    @torch.inference_mode()
    def logits(self, inputs: Any) -> np.ndarray:
        """Scores z (N, K) float32; a label is predicted if its score is above its threshold.

        Args:
            inputs: (N, C, H, W) uint8 or (N, F) numbers, as array or tensor; for a model of images also
                a sequence of file names; for a model of texts a sequence of texts, or (N, l) int32
                tokens.

        Raises:
            UsageError: another shape or type, or a file that is not an image.
        """
        samples, batch = self._samples(inputs), self.description.config.training.evaluation_batch
        parts = []
        for start in range(0, len(samples), batch):
            part = samples[start : start + batch]
            if self.takes_texts:
                part = trimmed(part)
            block = torch.from_numpy(np.ascontiguousarray(part))
            parts.append(self.module(block.to(self.device)).cpu().numpy())
        return np.concatenate(parts) if parts else np.empty((0, len(self.label_names)), np.float32)

    def predict_proba(self, inputs: Any) -> np.ndarray:
        """Probabilities (N, K) float64, in the order of the logits within each label.

        If the model has a calibration (``is_calibrated``), sigmoid(slope_k z + offset_k), fitted on scores
        of labelled samples that the scored networks were not trained on: about a share p of all entries
        with probability p is positive. Otherwise the sigmoid of the logits, which only ranks.

        Args:
            inputs: see ``logits``.
        """
        return self.probabilities(self.logits(inputs))

    @property
    def is_calibrated(self) -> bool:
        """Whether probabilities are calibrated: the folder has a ``calibration.json``."""
        return self.description.calibration is not None

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Probabilities (N, K) float64 of logits (N, K), as in ``predict_proba``."""
        if (calibration := self.description.calibration) is not None:
            logits = calibration.log_odds(torch.from_numpy(logits)).numpy()
        return probabilities(logits)

    def predict(self, inputs: Any) -> np.ndarray:
        """Predicted labels (N, K) uint8: 1 where the logit is above its threshold.

        Args:
            inputs: see ``logits``.
        """
        return (self.logits(inputs) > self.thresholds).astype(np.uint8)

    def stored(self, inputs: Any) -> np.ndarray:
        """Samples (N, ...) in stored form, the input of ``ScoringModule``.

        Args:
            inputs: see ``logits``.
        """
        if not self.takes_texts and isinstance(inputs, list):
            inputs = np.stack(inputs)
        return self._samples(inputs)


def load_model(folder: Path | str, device: str = "auto") -> Model:
    """Load a trained model for prediction.

    Args:
        folder: of an exported or confirmed model, of a run, or of a study (its best configuration,
            first seed).
        device: "auto", or a device of torch such as "cpu" or "cuda".

    Raises:
        UsageError: no model in the folder, or files that are damaged or from different models.
    """
    return Model(find_model(Path(folder)), device)


def find_model(folder: Path) -> Path:
    """The folder of a model or ensemble: the folder itself, or one inside a run or a study.

    Raises:
        UsageError: no model found.
    """
    folder = local_copy(folder)
    for candidate in (folder, folder / "model", folder / "checkpoints" / "model"):
        if _has_model(candidate):
            return candidate
    if (folder / "confirm.parquet").is_file():
        from bbam_ray.results.loading import load_study

        rows = load_study(folder).confirm
        for _, row in rows[rows["rank"].notna()].sort_values(["rank", "seed"]).iterrows():
            candidate = folder / "checkpoints" / confirmed_folder(row)
            if _has_model(candidate):
                return candidate
    raise UsageError(
        f"{folder}: contains no {WEIGHTS} or {ENSEMBLE}; give the folder of an exported model, of a "
        "run, or of a study that has confirmed its best configuration"
    )


def _has_model(folder: Path) -> bool:
    return (folder / WEIGHTS).is_file() or is_ensemble(folder)


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Sigmoid in float64, which keeps the order of scores up to 36."""
    return 1 / (1 + np.exp(-logits.astype(np.float64)))
