"""MIME: a Gaussian latent per label under an information bottleneck, and pseudo-positives that stay.

Paper: "Revisiting Pseudo-Label for Single-Positive Multi-Label Learning", ICML 2023; in the
semi-supervised form of method section 11.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from bbam_ray import distributed
from bbam_ray.core.losses import binary_loss
from bbam_ray.methods.method import Minibatch, Snapshot, StepLoss, TaskInfo, masked_batch_mean
from bbam_ray.methods.scaled_cosine import (
    ScaledCosineMethod,
    ScaledCosineOptions,
    auxiliary_of,
    forward_together,
)


class MimeOptions(ScaledCosineOptions):
    """Options of the method ``mime``."""

    bottleneck_weight: float = Field(
        1e-4,
        ge=0,
        le=1,
        description="Weight beta of the KL divergence of the information bottleneck.",
    )
    positive_threshold: float = Field(
        0.95,
        gt=0,
        lt=1,
        description="Probability above which an entry becomes positive permanently.",
    )


class LatentVariance(nn.Module):
    """Log variance of each label's latent, linear in the feature's direction.

    It starts at 0 everywhere, the variance of the prior, and is held in +-10. Computed in float32 under
    autocast, as the cosines are.
    """

    def __init__(self, feature_dim: int, num_labels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(num_labels, feature_dim))
        self.bias = nn.Parameter(torch.zeros(num_labels))

    def forward(self, features: Tensor) -> Tensor:
        """(B, D) features to (B, K) log variances."""
        with torch.autocast(features.device.type, enabled=False):
            direction = F.normalize(features.float(), dim=1)
            return F.linear(direction, self.weight, self.bias).clamp(-10, 10)


def moderated_logits(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Logit of E[sigmoid(z)] for z ~ N(mu, sigma^2): mu / sqrt(1 + pi sigma^2 / 8) (MacKay, 1992).

    In closed form instead of by samples, so that nothing random depends on the division into ranks.

    Args:
        mean, log_variance: (B, K).
    """
    return mean * torch.rsqrt(1 + math.pi / 8 * log_variance.exp())


def divergence_from_prior(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mu, sigma^2) | N(0, 1)) = (mu^2 + sigma^2 - 1 - ln sigma^2) / 2, (B, K), >= 0."""
    return (mean.square() + log_variance.exp() - 1 - log_variance) / 2


class Mime(ScaledCosineMethod):
    """State: ``positive`` (N, K) int8, which entries have become positive; the same on all ranks.

    The latent of a label is N(s cos, sigma^2(f)). An unlabelled entry is a negative until the
    averaged model gives it p > 0.95 (sigmoid of the latent's mean); from then on it is a positive.

    Where the text leaves room: positives are found once an epoch, in the refresh, whose snapshot names
    the samples. An unlabelled sample is at another rank in the next epoch, so the table has the
    rows of all samples and a refresh adds the new entries of all ranks: a byte for each of N K entries,
    held and sent (6.6 MB on COCO). The rows of labelled samples stay 0; their labels are never
    touched. Scoring ranks by the latent's mean: its variance is not a function of the cosine.
    """

    name: ClassVar[str] = "mime"
    Options = MimeOptions
    refreshes: ClassVar[bool] = True
    options: MimeOptions

    def __init__(self, options: MimeOptions, task: TaskInfo) -> None:
        super().__init__(options, task)
        device = task.labels.device
        self.positive = torch.zeros(0, task.num_labels, dtype=torch.int8, device=device)
        # Of this rank's unlabelled samples; filled by every refresh.
        self.pseudo = self.positive

    @staticmethod
    def auxiliary(options: Any, feature_dim: int, num_labels: int) -> nn.Module:
        return LatentVariance(feature_dim, num_labels)

    def _loss(self, cosine: Tensor, log_variance: Tensor, labels: Tensor) -> Tensor:
        mean = self.logits(cosine)
        bottleneck = self.options.bottleneck_weight * divergence_from_prior(mean, log_variance)
        return binary_loss(moderated_logits(mean, log_variance), labels) + bottleneck

    def labeled_loss(self, model: nn.Module, labeled: Minibatch, labels: Tensor) -> StepLoss:
        """Warm-up: cross-entropy of the latent and its divergence, on the strong view."""
        (features,), (cosine,) = forward_together(model, (labeled, "strong"))
        loss = self._loss(cosine, auxiliary_of(model)(features), labels)
        return StepLoss(masked_batch_mean(loss, None, labeled.total))

    def semi_supervised_loss(
        self, model: nn.Module, labeled: Minibatch, labels: Tensor, unlabeled: Minibatch
    ) -> StepLoss:
        """The same on both kinds of samples, strong views; unlabelled ones with what they have become."""
        features, cosines = forward_together(model, (labeled, "strong"), (unlabeled, "strong"))
        targets = labels, self.pseudo[unlabeled.rows]
        variance = auxiliary_of(model)
        known, others = (
            self._loss(cosine, variance(feature), target)
            for feature, cosine, target in zip(features, cosines, targets, strict=True)
        )
        return StepLoss(
            masked_batch_mean(known, None, labeled.total),
            self.unlabeled_weight * masked_batch_mean(others, None, unlabeled.total),
        )

    @torch.no_grad()
    def refresh(self, snapshot: Snapshot) -> None:
        """Entries above the threshold join those that are positive already."""
        cosine, index = snapshot.unlabeled_cosine, snapshot.unlabeled_index
        samples = snapshot.num_labeled, len(cosine)
        known, others = (sum(distributed.row_counts(n, cosine.device)) for n in samples)
        if index is None:
            index = known + distributed.global_index(len(cosine), cosine.device)
        if not len(self.positive):
            self.positive = self.positive.new_zeros(known + others, self.task.num_labels)
        found = torch.zeros_like(self.positive)
        found[index] = (torch.sigmoid(self.logits(cosine)) > self.options.positive_threshold).to(
            found.dtype
        )
        (everywhere,) = distributed.all_reduce_sum(found)
        self.positive = self.positive | everywhere
        self.pseudo = self.positive[index]

    def pseudo_labels(self) -> tuple[Tensor, Tensor] | None:
        """All entries take part: what has not become positive is learned as negative."""
        if not len(self.pseudo):
            return None
        return self.pseudo, torch.ones_like(self.pseudo, dtype=torch.bool)

    def state_dict(self) -> dict[str, Any]:
        return {"positive": self.positive}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.positive = state["positive"].to(self.task.labels.device)
