"""From a checked configuration to the data that training may see, and the truth that it may not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bbam_ray import distributed
from bbam_ray.config import RunConfig
from bbam_ray.data import DATASETS, Inputs, Samples, ViewSettings
from bbam_ray.data.splits import Split, make_split
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


class PseudoLabelAudit:
    """Precision and recall of confident pseudo-labels against the hidden truth.

    A one-way street: training hands over copies and its figures go into the records only.

    Args:
        truth: (N_u, K) 0/1, in the order of the unlabelled rows.
        known: (N_u,) bool, False where there is no truth: such samples are not judged.
    """

    def __init__(self, truth: np.ndarray, known: np.ndarray | None = None) -> None:
        self._truth = torch.from_numpy(np.ascontiguousarray(truth)).bool()
        self._known = torch.ones(len(truth), dtype=torch.bool)
        if known is not None:
            self._known = torch.from_numpy(np.ascontiguousarray(known))

    def __call__(self, labels: Tensor, confident: Tensor, rows: np.ndarray) -> dict[str, Any]:
        """Precision and recall, over all entries and per label (K,), of confident pseudo-positives.

        Args:
            labels, confident: (N, K) of this rank's unlabelled samples.
            rows: (N,) their positions among all unlabelled samples.
        """
        places = torch.from_numpy(rows)
        claimed = (confident & (labels == 1)).cpu() & self._known[places].unsqueeze(1)
        truth = self._truth[places]
        counts = torch.stack([(claimed & truth).sum(0), claimed.sum(0), truth.sum(0)]).double()
        (counts,) = distributed.all_reduce_sum(counts.to(labels.device))
        right, made, wanted = counts.cpu()
        return {
            "precision": float(right.sum() / made.sum()) if made.sum() else None,
            "recall": float(right.sum() / wanted.sum()) if wanted.sum() else None,
            "precision_by_label": torch.where(made > 0, right / made, torch.nan),
            "recall_by_label": torch.where(wanted > 0, right / wanted, torch.nan),
        }


def pseudo_label_shares(labels: Tensor, confident: Tensor) -> dict[str, float | None]:
    """How many pseudo-labels there are, whatever the truth: they can run dry, or flood everything.

    Args:
        labels, confident: (N, K) of this rank's unlabelled samples.

    Returns:
        Confident positives a sample, and the share of entries that are confident, over all ranks.
    """
    counts = torch.stack(
        [
            (confident & (labels == 1)).sum(),
            confident.sum(),
            torch.tensor(len(labels)).to(labels.device),
        ]
    )
    (counts,) = distributed.all_reduce_sum(counts.double())
    positives, sure, samples = counts.tolist()
    if not samples:
        return {"pseudo_positives": None, "pseudo_confident": None}
    entries = samples * labels.shape[1]
    return {"pseudo_positives": positives / samples, "pseudo_confident": sure / entries}


def load_part(config: RunConfig, part: Any) -> Samples:
    """Samples of one part of the run's data set, after checking that the data are there."""
    dataset, data_dir = DATASETS[config.training.dataset], config.training.data_dir
    dataset.check(config.data, data_dir)
    return dataset.load(config.data, data_dir, part)


def check_task(config: RunConfig) -> Split:
    """Everything that can be wrong before training starts; returns the split.

    Raises:
        UsageError: data missing, no labels to learn from, or a backbone that does not fit.
    """
    samples, common = load_part(config, "train"), config.training
    check_backbone(common.backbone, common.weights, samples.input_shape)
    return split_of(samples, config)


def split_of(samples: Samples, config: RunConfig) -> Split:
    """The division of a training part by the run's seed: the same for all trials and methods."""
    common = config.training
    return make_split(
        samples.labels,
        common.labeled_fraction,
        common.validation_fraction,
        common.seed,
        known=samples.known,
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
    known = None if samples.known is None else samples.known[split.unlabeled]
    if known is not None and not known.any():
        return data, None
    return data, PseudoLabelAudit(samples.labels[split.unlabeled], known)
