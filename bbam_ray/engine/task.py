"""From a checked configuration to the data that training may see, and the truth that it may not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bbam_ray.config import RunConfig
from bbam_ray.data import DATASETS, Inputs, Samples, ViewSettings
from bbam_ray.data.sampling.splits import Split, make_split
from bbam_ray.engine.pseudo_label_records import PseudoLabelAudit
from bbam_ray.models import check_backbone


@dataclass(frozen=True)
class TrainingData:
    """Everything that training can reach; no label of an unlabelled or test sample is in it.

    Args:
        inputs: (N, ...) all training inputs; may stay on disk.
        labeled, validation, unlabeled: row numbers into ``inputs``.
        labels: (N_l, K) int8 of the labelled rows.
        validation_labels: (N_v, K) int8.
        label_names: K names.
        views: how inputs become network inputs.
    """

    inputs: Inputs
    labeled: np.ndarray
    labels: Tensor
    validation: np.ndarray
    validation_labels: Tensor
    unlabeled: np.ndarray
    label_names: tuple[str, ...]
    views: ViewSettings

    @property
    def input_shape(self) -> tuple[int, ...]:
        return tuple(self.inputs.shape[1:])


def load_part(config: RunConfig, part: Any) -> Samples:
    """Samples of one part of the run's data set, after checking that the data are there."""
    dataset, data_dir = DATASETS[config.training.dataset], config.training.data_dir
    return dataset.load(config.data, data_dir, part)


def check_task(config: RunConfig) -> Split:
    """Everything that can be wrong before training starts; returns the split.

    Raises:
        UsageError: data missing, no labels to learn from, or a backbone that does not fit.
    """
    samples, common = load_part(config, "train"), config.training
    check_backbone(common.backbone, common.weights, samples.input_shape, samples.views.vocabulary)
    return split_of(samples, config)


def split_of(samples: Samples, config: RunConfig) -> Split:
    """The division of a training part by the run's seed: the same for all trials and methods."""
    common = config.training
    return make_split(
        samples.labels,
        common.labeled_fraction,
        common.validation_fraction,
        common.seed,
        is_labeled=samples.is_labeled,
        stratified=common.split == "stratified",
    )


def prepare_training(config: RunConfig) -> tuple[TrainingData, PseudoLabelAudit | None]:
    """Load the training part and divide it by the run's seed.

    Returns:
        What training may see, and the judge of its pseudo-labels where there is any truth to judge by.
    """
    samples = load_part(config, "train")
    split = split_of(samples, config)

    def labels(rows: np.ndarray) -> Tensor:
        return torch.from_numpy(samples.labels[rows].astype(np.int8))

    data = TrainingData(
        inputs=samples.inputs,
        labeled=split.labeled,
        labels=labels(split.labeled),
        validation=split.validation,
        validation_labels=labels(split.validation),
        unlabeled=split.unlabeled,
        label_names=samples.label_names,
        views=samples.views,
    )
    is_labeled = None if samples.is_labeled is None else samples.is_labeled[split.unlabeled]
    if is_labeled is not None and not is_labeled.any():
        return data, None
    return data, PseudoLabelAudit(samples.labels[split.unlabeled], is_labeled)
