"""Scores of samples by the networks of a training run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bbam_ray import distributed
from bbam_ray.config import TrainingConfig
from bbam_ray.data import Inputs
from bbam_ray.data.sampling.sharding import even_part
from bbam_ray.data.views.images import Views
from bbam_ray.engine.evaluation import cosines, snapshot
from bbam_ray.engine.minibatches import scoring_noise
from bbam_ray.engine.optim import Precision
from bbam_ray.engine.task import TrainingData
from bbam_ray.methods.method import HeldOut, Method, Snapshot
from bbam_ray.models import Network


class NetworkScores:
    """Forward passes without gradient; together with other ranks in a process group.

    Args:
        model: that is trained.
        averaged: its exponential average.
        method: maps cosines to logits.
        data: what training steps read.
        views: of these data.
        common: settings of training.
        device: of the networks.
        precision: of the forward passes.
    """

    def __init__(
        self,
        model: Network,
        averaged: Network,
        method: Method[Any],
        data: TrainingData,
        views: Views,
        common: TrainingConfig,
        device: torch.device,
        precision: Precision,
    ) -> None:
        self._model, self._averaged, self._method = model, averaged, method
        self._data, self._views, self._common = data, views, common
        self._device, self._precision = device, precision

    def logits(self, inputs: Inputs, rows: np.ndarray, views: Views) -> Tensor:
        """Logits (N, K) of the averaged network.

        Args:
            inputs: all samples of a part.
            rows: (N,) row indices of the samples to score.
            views: of the inputs.
        """
        batch = self._common.evaluation_batch
        cosine = cosines(self._averaged, inputs, rows, batch, views, self._device, self._precision)
        return self._method.logits(cosine)

    def of_validation(self) -> Tensor:
        """Logits (N_v, K) of the averaged network for all validation samples, on every rank."""
        rows = self._data.validation
        part = even_part(len(rows), distributed.rank(), distributed.world_size())
        own = self.logits(self._data.inputs, rows[part], self._views)
        (logits,) = distributed.gather_rows(own)
        return logits

    def snapshot(
        self, rows: tuple[np.ndarray, np.ndarray], epoch: int, last_logits: Tensor
    ) -> Snapshot:
        """What the refresh of a method gets.

        Args:
            rows: this rank's positions in the labelled and in the unlabelled pool.
            epoch: from 1; of the random numbers of weak views.
            last_logits: (N_v, K) of the averaged network for the validation samples; empty if unknown.
        """
        noise = None
        if self._views.settings.flip_when_scoring:
            noise = scoring_noise(self._common.seed, epoch, self._data, rows)
        taken = snapshot(
            self._model,
            self._averaged,
            self._data,
            rows,
            self._views,
            self._common.evaluation_batch,
            self._device,
            self._precision,
            noise,
        )
        if not self._method.uses_held_out:
            return taken
        return replace(taken, held_out=self._held_out(last_logits))

    def _held_out(self, last_logits: Tensor) -> HeldOut | None:
        if len(self._data.validation):
            # The averaged network is that of the last evaluation; without a warm-up there is none.
            logits = last_logits if len(last_logits) else self.of_validation()
            return HeldOut(logits, self._data.validation_labels.to(self._device))
        if self._data.out_of_fold is None:
            return None
        logits, labels = (tensor.to(self._device) for tensor in self._data.out_of_fold)
        return HeldOut(logits, labels, of_this_model=False)

    @property
    def num_held_out(self) -> int | None:
        """Samples behind thresholds or weights of pseudo-labels; None if the method uses none."""
        if not self._method.uses_held_out:
            return None
        out_of_fold = () if self._data.out_of_fold is None else self._data.out_of_fold[0]
        return len(self._data.validation) or len(out_of_fold)
