"""The trainer of methods that are fitted once on frozen features, and the choice of a trainer."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bbam_ray.config import RunConfig
from bbam_ray.engine.evaluation import evaluation_batches
from bbam_ray.engine.pruning_rule import PruningRule
from bbam_ray.engine.pseudo_label_records import PseudoLabelAudit
from bbam_ray.engine.stop_request import never
from bbam_ray.engine.task import TrainingData
from bbam_ray.engine.trainer import EpochRecord, Trainer
from bbam_ray.methods import METHODS
from bbam_ray.methods.fitted import FittedMethod


def make_trainer(
    config: RunConfig,
    data: TrainingData,
    audit: PseudoLabelAudit | None = None,
    pruning_rule: PruningRule | None = None,
) -> Trainer:
    """The trainer of a configuration; arguments are those of ``Trainer``."""
    is_fitted = issubclass(METHODS[config.training.method], FittedMethod)
    return (FittedTrainer if is_fitted else Trainer)(config, data, audit, pruning_rule)


class FittedTrainer(Trainer):
    """Fits a ``FittedMethod`` in a single epoch.

    Every rank computes the features of all samples and fits the same model, so that the answer does not
    depend on the number of ranks; several ranks are no faster than one. Settings of training by steps,
    such as ``epochs`` and ``learning_rate``, have no effect.
    """

    @property
    def finished(self) -> bool:
        return self.epoch >= 1

    def run_epoch(self, requested: Callable[[], bool] = never) -> EpochRecord:
        """Fit the method, evaluate it, and return the record of this only epoch.

        Args:
            requested: not read; the fit has no steps between which it could stop.
        """
        if self.finished:
            raise RuntimeError(f"training has ended after epoch {self.epoch}")
        assert isinstance(self.method, FittedMethod)
        self.epoch = 1
        started = time.perf_counter()
        data = self.data
        # Validation samples are left out, so that their scores are those of new samples.
        rows = np.concatenate([data.labeled, data.unlabeled])
        order = np.argsort(rows)
        positions = np.empty(len(rows), dtype=np.int64)
        positions[order] = np.arange(len(rows))
        features = self._features(rows[order])
        labeled = torch.from_numpy(positions[: len(data.labeled)]).to(self.device)
        extracted = time.perf_counter()
        self.method.fit(self.model, features, labeled, self.labels)
        self.average.module.load_state_dict(self.model.state_dict())
        fitted = time.perf_counter()
        by_label = {k: v.double().tolist() for k, v in self.method.label_records().items()}
        metrics, metrics_by_label = self._evaluate()
        scalars: dict[str, Any] = {
            "epoch": 1,
            "phase": "warmup",
            "loss": None,
            **metrics,
            "seconds_refresh": extracted - started,
            "seconds_train": fitted - extracted,
            "seconds_evaluate": time.perf_counter() - fitted,
            "images_per_second": len(rows) / (fitted - started),
        }
        return EpochRecord(scalars, by_label | metrics_by_label)

    @torch.no_grad()
    def _features(self, rows: np.ndarray) -> Tensor:
        """Outputs (N, F) float32 of the initial backbone for rows of the training part."""
        self.model.eval()
        parts = []
        batch = self.config.training.evaluation_batch
        inputs = self.data.inputs
        with self.precision.autocast():
            for where, block in evaluation_batches(inputs, rows, batch, self.views, self.device):
                parts.append((where, self.model.backbone(block).float()))
        features = torch.empty(len(rows), parts[0][1].shape[1], device=self.device)
        for where, block in parts:
            features[where] = block
        return features
