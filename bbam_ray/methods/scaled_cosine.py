"""What the competing methods share: scaled cosines as logits, one forward pass, recorded labels."""

from __future__ import annotations

from typing import Any, ClassVar

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
    ScaleOptions,
    UnlabeledWeightOptions,
    unlabeled_weight,
)


class ScaledCosineOptions(ScaleOptions, UnlabeledWeightOptions):
    """Options of the methods below."""


class ScaledCosineMethod(Method):
    """z = s cos in training and in scoring; p = sigmoid(z), so that 0 is p = 1/2."""

    semi_supervised: ClassVar[bool] = True
    options: Any  # with scale and unlabeled_weight

    @property
    def unlabeled_weight(self) -> float:
        """lambda_u."""
        return unlabeled_weight(self.options, self.task)

    def logits(self, cosine: Tensor) -> Tensor:
        scaled: Tensor = self.options.scale * cosine
        return scaled

    def label_records(self) -> dict[str, Tensor]:
        return {"prior": self.task.positive_frequency}


class StepLabelsMethod(ScaledCosineMethod):
    """A method that labels each unlabelled sample in the step that it is in; none is remembered.

    What was assigned in the current epoch is kept for diagnostics alone, and so not saved.
    """

    def __init__(self, options: ScaledCosineOptions, task: TaskInfo) -> None:
        super().__init__(options, task)
        self._assigned: tuple[Tensor, Tensor] | None = None

    def labeled_loss(self, model: nn.Module, labeled: Minibatch, labels: Tensor) -> StepLoss:
        """Warm-up: binary cross-entropy on the strong view."""
        _, (cosine,) = forward_together(model, (labeled, "strong"))
        loss = binary_loss(self.logits(cosine), labels)
        return StepLoss(masked_batch_mean(loss, None, labeled.total))

    def start_epoch(self, unlabeled: int) -> None:
        """Forget the labels of the epoch before."""
        shape, device = (unlabeled, self.task.num_labels), self.task.labels.device
        self._assigned = (
            torch.zeros(shape, dtype=torch.int8, device=device),
            torch.zeros(shape, dtype=torch.bool, device=device),
        )

    def record(self, unlabeled: Minibatch, labels: Tensor, confident: Tensor) -> None:
        """Keep the labels (B, K) of a step, and which of them are confident (broadcast to (B, K))."""
        if self._assigned is not None:
            self._assigned[0][unlabeled.rows] = labels.to(torch.int8)
            self._assigned[1][unlabeled.rows] = confident.expand(labels.shape)

    def pseudo_labels(self) -> tuple[Tensor, Tensor] | None:
        return self._assigned


def forward_together(
    model: nn.Module, *parts: tuple[Minibatch, str]
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Features and cosines of several views, from one pass: batch norm sees their union, once.

    Args:
        model: gives features (B, D) and cosines (B, K).
        parts: samples and the view ("weak" or "strong") that is wanted of them; any may be empty.

    Returns:
        The features of each part, and its cosines.
    """
    inputs = [samples.view(kind) for samples, kind in parts]
    features, cosine = model(concat_views(*inputs))
    sizes = [len(part) for part in inputs]
    return features.split(sizes), cosine.split(sizes)


def auxiliary_of(model: nn.Module) -> nn.Module:
    """The further network that ``Method.auxiliary`` made."""
    auxiliary = model.auxiliary
    assert isinstance(auxiliary, nn.Module)
    return auxiliary
