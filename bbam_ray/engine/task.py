"""From a checked configuration to training data, and the hidden labels that only the audit sees."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bbam_ray.config import RunConfig
from bbam_ray.data import DATASETS, Inputs, Samples, ViewSettings
from bbam_ray.data.datasets.view_options import ViewOptions
from bbam_ray.data.sampling.splits import Split, make_split
from bbam_ray.engine.pseudo_label_records import PseudoLabelAudit
from bbam_ray.errors import UsageError
from bbam_ray.models import check_backbone, has_batch_norm
from bbam_ray.pretrained_images import image_input, is_timm


@dataclass(frozen=True)
class TrainingData:
    """Everything that training can reach; no label of an unlabelled or test sample is in it.

    Args:
        inputs: (N, ...) all training inputs; may stay on disk.
        labeled, validation, unlabeled: row indices into ``inputs``.
        labels: (N_l, K) int8 of the labelled rows.
        validation_labels: (N_v, K) int8.
        label_names: K names.
        views: how inputs become network inputs.
        out_of_fold: scores (N, K) of labelled samples by models that were not trained on them, and their
            labels (N, K), for a run without validation samples; None = unknown.
    """

    inputs: Inputs
    labeled: np.ndarray
    labels: Tensor
    validation: np.ndarray
    validation_labels: Tensor
    unlabeled: np.ndarray
    label_names: tuple[str, ...]
    views: ViewSettings
    out_of_fold: tuple[Tensor, Tensor] | None = None

    @property
    def input_shape(self) -> tuple[int, ...]:
        return tuple(self.inputs.shape[1:])


def load_part(config: RunConfig, part: Any) -> Samples:
    """Samples of one part of the run's data set, after checking that its files exist.

    Raises:
        UsageError: something is wrong with the data, or the samples of the test part have no labels.
    """
    dataset, data_dir = DATASETS[config.training.dataset], config.training.data_dir
    samples = dataset.load(config.data, data_dir, part)
    if part == "test":
        check_labeled_test(samples)
    return samples


def check_labeled_test(samples: Samples) -> None:
    """Raise a UsageError if nothing can be measured on the test part.

    Args:
        samples: of any part.
    """
    if samples.reading is not None and samples.reading.unlabeled_test:
        raise UsageError(samples.reading.unlabeled_test)


def views_of(config: RunConfig, samples: Samples) -> ViewSettings:
    """How samples become inputs of the run's network.

    Images for a backbone of timm are normalised as that network expects, others as the data set says;
    none with the setting ``normalize`` false.

    Raises:
        UsageError: the network's mean and standard deviation are unknown.
    """
    common, options = config.training, config.data
    is_raw = isinstance(options, ViewOptions) and not options.normalize
    if is_raw or not is_timm(common.backbone):
        return samples.views
    own = image_input(common.backbone, common.weights)
    return replace(samples.views, mean=own.mean, std=own.std)


@dataclass(frozen=True)
class Task:
    """The training part of a data set, read once, and how a run divides it.

    Args:
        samples: of the training part, with all of its labels.
        split: the division by the run's seed.
    """

    samples: Samples
    split: Split

    @property
    def label_names(self) -> tuple[str, ...]:
        return self.samples.label_names


def check_task(config: RunConfig, samples: Samples | None = None) -> Task:
    """Read the training part and check everything that could fail before training starts.

    Args:
        config: of the run.
        samples: of the training part, if a run with the same data options has read it already.

    Raises:
        UsageError: data missing, no labels to learn from, or a backbone that does not fit.
    """
    common = config.training
    if samples is None:
        samples = load_part(config, "train")
    check_backbone(
        common.backbone,
        common.weights,
        samples.input_shape,
        samples.views.vocabulary,
        common.drop_path,
    )
    views_of(config, samples)
    for name, value in (("warmup_views", "both"), ("batch_norm", "pretrained")):
        if getattr(common, name) == value and not has_batch_norm(
            common.backbone, samples.input_shape, samples.views.vocabulary
        ):
            raise UsageError(
                f"{name} = {value} acts through batch norm, and backbone '{common.backbone}' has none: "
                f"leave {name} out, or use another backbone"
            )
    if common.cache_features and len(samples.input_shape) == 1:
        raise UsageError(
            f"cache_features = true: data set '{common.dataset}' has no images; leave cache_features out"
        )
    if common.cache_features:
        _check_cached_features(samples.views)
    return Task(samples, split_of(samples, config))


def _check_cached_features(views: ViewSettings) -> None:
    """Raise a UsageError for a setting that changes images, where features are read in their place."""
    for name in ("strong_view", "flip_when_scoring"):
        if (value := getattr(views, name)) != getattr(ViewSettings(), name):
            raise UsageError(
                f"{name} = {str(value).lower()} changes images, and with cache_features = true views "
                "change features; leave one of the two out"
            )


def split_of(samples: Samples, config: RunConfig) -> Split:
    """The division of a training part by the run's seed: the same for all trials and methods.

    With ``reshuffle``, the validation samples also depend on the configuration
    ([Nagler et al., NeurIPS 2024](https://arxiv.org/abs/2405.15393)).
    """
    common = config.training
    return make_split(
        samples.labels,
        common.labeled_fraction,
        common.validation_fraction,
        common.seed if common.split_seed is None else common.split_seed,
        is_labeled=samples.is_labeled,
        is_validation=samples.is_validation,
        stratified=common.split == "stratified",
        folds=common.folds,
        fold=common.fold,
        validation_draw=_configuration_number(config) if common.reshuffle else None,
    )


def _configuration_number(config: RunConfig) -> int:
    """A number that depends on the configuration, not on its seeds, folder, device or length."""
    ignored = {"seed", "split_seed", "device", "data_dir", "stop_epoch", "patience"}
    values = {name: value for name, value in config.flat().items() if name not in ignored}
    return zlib.crc32(json.dumps(values, sort_keys=True).encode())


def prepare_training(
    config: RunConfig, task: Task | None = None
) -> tuple[TrainingData, PseudoLabelAudit | None]:
    """Divide the training part by the run's seed.

    Args:
        config: of the run.
        task: of the same configuration; None reads the training part.

    Returns:
        What training may see, and the audit of its pseudo-labels; None if no unlabelled sample has
        known labels.
    """
    if task is None:
        samples = load_part(config, "train")
        split = split_of(samples, config)
    else:
        samples, split = task.samples, task.split

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
        views=views_of(config, samples),
    )
    is_labeled = None if samples.is_labeled is None else samples.is_labeled[split.unlabeled]
    if is_labeled is not None and not is_labeled.any():
        return data, None
    return data, PseudoLabelAudit(samples.labels[split.unlabeled], is_labeled)
