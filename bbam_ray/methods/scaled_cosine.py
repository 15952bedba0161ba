"""Base classes of the competing methods: scaled cosines as logits, one forward pass, recorded labels."""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from bbam_ray.core.losses import binary_loss
from bbam_ray.methods.method import (
    Method,
    Minibatch,
    StepLoss,
    TaskInfo,
    concat_views,
    masked_batch_mean,
)
from bbam_ray.methods.shared_options import (
    ScaledOptions,
    ScaleOptions,
    UnlabeledWeightOptions,
    unlabeled_weight,
)

ScaledT = TypeVar("ScaledT", bound=ScaledOptions)


class ScaledCosineOptions(ScaleOptions, UnlabeledWeightOptions):
    """Options of a method whose logits are scaled cosines, with unlabelled samples."""


class ScaledCosineMethod(Method[ScaledT]):
    """A method with z = s cos in training and in scoring; p = sigmoid(z), so that z = 0 is p = 1/2."""

    semi_supervised: ClassVar[bool] = True

    @property
    def unlabeled_weight(self) -> float:
        """lambda_u."""
        return unlabeled_weight(self.options, self.task)

    def logits(self, cosine: Tensor) -> Tensor:
        scaled: Tensor = self.options.scale * cosine
        return scaled

    def label_records(self) -> dict[str, Tensor]:
        return {"prior": self.task.positive_frequency}


class StepLabelsMethod(ScaledCosineMethod[ScaledT]):
    """A method that assigns pseudo-labels in the step that trains on them, and does not reuse them.

    The labels of the current epoch are kept for diagnostics only, so they are saved only with an epoch
    that is not complete.
    """

    def __init__(self, options: ScaledT, task: TaskInfo) -> None:
        super().__init__(options, task)
        self._assigned: tuple[Tensor, Tensor] | None = None

    def labeled_loss(self, model: nn.Module, labeled: Minibatch, labels: Tensor) -> StepLoss:
        """Warm-up: binary cross-entropy on the strong view."""
        _, (cosine,) = forward_together(model, (labeled, "strong"))
        loss = binary_loss(self.logits(cosine), labels)
        return StepLoss(masked_batch_mean(loss, None, labeled.total))

    def start_epoch(self, unlabeled: int) -> None:
        """Clear the labels of the previous epoch."""
        shape, device = (unlabeled, self.task.num_labels), self.task.labels.device
        self._assigned = (
            torch.zeros(shape, dtype=torch.int8, device=device),
            torch.zeros(shape, dtype=torch.bool, device=device),
        )

    def record(self, unlabeled: Minibatch, labels: Tensor, confident: Tensor) -> None:
        """Keep the labels of a step for diagnostics.

        Args:
            unlabeled: the samples.
            labels: (B, K) 0/1 or bool.
            confident: bool, broadcast to (B, K).
        """
        if self._assigned is not None:
            self._assigned[0][unlabeled.rows] = labels.to(torch.int8)
            self._assigned[1][unlabeled.rows] = confident.expand(labels.shape)

    def pseudo_labels(self) -> tuple[Tensor, Tensor] | None:
        return self._assigned

    def epoch_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        if self._assigned is None:
            return {}, {}
        return {}, {"pseudo": self._assigned[0], "confident": self._assigned[1]}

    def load_epoch_state(self, common: dict[str, Any], unlabeled: dict[str, Tensor]) -> None:
        device = self.task.labels.device
        if unlabeled:
            self._assigned = unlabeled["pseudo"].to(device), unlabeled["confident"].to(device)


def forward_together(
    model: nn.Module, *parts: tuple[Minibatch, str]
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Features and cosines of several views from one forward pass, so batch norm sees their union once.

    Args:
        model: maps inputs to features (B, D) and cosines (B, K).
        parts: pairs of samples and a view, "weak" or "strong"; any may be empty.

    Returns:
        The features of each part, and the cosines of each part.
    """
    inputs = [samples.view(kind) for samples, kind in parts]
    features, cosine = model(concat_views(*inputs))
    sizes = [len(part) for part in inputs]
    return features.split(sizes), cosine.split(sizes)


def auxiliary_of(model: nn.Module) -> nn.Module:
    """The network that ``Method.auxiliary`` built."""
    auxiliary = model.auxiliary
    assert isinstance(auxiliary, nn.Module)
    return auxiliary
