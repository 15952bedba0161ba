"""Steps and extreme data for the conformance tests of methods, on any device."""

from __future__ import annotations

import numpy as np
import torch

from bbam_ray.data import DATASETS
from bbam_ray.engine.task import TrainingData
from bbam_ray.engine.trainer import Trainer
from bbam_ray.methods import METHODS
from bbam_ray.methods.fitted import FittedMethod
from bbam_ray.methods.method import Minibatch, StepLoss

#: methods that are trained by steps
TRAINED = [name for name, method in METHODS.items() if not issubclass(method, FittedMethod)]


def minibatch(trainer: Trainer, kind: str, count: int = 10) -> Minibatch:
    """The first samples of a pool; all views are the plain one."""
    rows = getattr(trainer.data, kind)[:count]
    samples = torch.from_numpy(np.asarray(trainer.data.inputs[rows])).to(trainer.device)
    inputs = trainer.views.plain(samples)
    positions = torch.arange(len(rows), device=trainer.device)
    return Minibatch(positions, len(rows), lambda view: inputs)


def losses(trainer: Trainer) -> list[StepLoss]:
    """One step's loss in each phase that the method has."""
    labeled = minibatch(trainer, "labeled")
    labels = trainer.labels[labeled.rows]
    trainer.model.train()
    found = [trainer.method.labeled_loss(trainer.model, labeled, labels)]
    if trainer.method.semi_supervised:
        unlabeled = minibatch(trainer, "unlabeled", 20)
        found.append(trainer.method.semi_supervised_loss(trainer.model, labeled, labels, unlabeled))
    return found


def one_label_absent_and_one_with_a_single_positive() -> TrainingData:
    rng = np.random.default_rng(5)
    labels = torch.from_numpy((rng.random((30, 4)) < 0.4).astype(np.int8))
    labels[:, 0] = 0
    labels[:20, 1] = 0
    labels[3, 1] = 1
    labels[25, 1] = 1  # among the validation samples
    return TrainingData(
        inputs=rng.integers(0, 256, (90, 1, 16, 16), dtype=np.uint8),
        labeled=np.arange(20),
        labels=labels[:20],
        validation=np.arange(20, 30),
        validation_labels=labels[20:],
        unlabeled=np.arange(30, 90),
        label_names=("absent", "single", "c", "d"),
        views=DATASETS["digits"].views,
    )
