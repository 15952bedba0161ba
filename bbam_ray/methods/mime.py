"""MIME: a Gaussian latent variable per label with an information bottleneck, and permanent positives.

Paper: "[Revisiting Pseudo-Label for Single-Positive Multi-Label
Learning](https://proceedings.mlr.press/v202/liu23ar.html)", ICML 2023; the semi-supervised form
implemented here is in docs/method.md, section 11.
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
    """Log variance of each label's latent variable, linear in the direction of the feature.

    It starts at 0, the log variance of the prior, and is limited to [-10, 10]. Computed in float32 under
    autocast, like the cosines.

    Args:
        feature_dim: D.
        num_labels: K.
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
    """Approximate logit of E[sigmoid(z)] for z ~ N(mu, sigma^2): mu / sqrt(1 + pi sigma^2 / 8).

    A closed form instead of samples, so that no random number depends on the number of ranks.

    Args:
        mean: mu, (B, K).
        log_variance: ln sigma^2, (B, K).

    Returns:
        (B, K).

    Source: MacKay, "The Evidence Framework Applied to Classification Networks", Neural Computation, 1992.
    """
    return mean * torch.rsqrt(1 + math.pi / 8 * log_variance.exp())


def divergence_from_prior(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Divergence KL(N(mu, sigma^2) | N(0, 1)) = (mu^2 + sigma^2 - 1 - ln sigma^2) / 2.

    Args:
        mean: mu, (B, K).
        log_variance: ln sigma^2, (B, K).

    Returns:
        (B, K), >= 0, in nats.
    """
    return (mean.square() + log_variance.exp() - 1 - log_variance) / 2


class Mime(ScaledCosineMethod[MimeOptions]):
    """The method ``mime``.

    State: ``positive`` (N, K) int8, which entries have become positive; equal on all ranks.

    The latent variable of a label is N(s cos, sigma^2(f)). An unlabelled entry is negative until the
    averaged model gives it p > 0.95 (sigmoid of the mean of the latent variable); from then on it is
    positive.

    Where the paper leaves room: entries become positive once an epoch, in the refresh, whose snapshot has
    the sample indices. An unlabelled sample moves to another rank in the next epoch, so the table has
    the rows of all samples and a refresh reduces the new entries of all ranks: one byte for each of the
    N K entries, stored and sent (6.6 MB on COCO). The rows of labelled samples stay 0; their labels never
    change. Scoring uses the mean of the latent variable, as its variance is not a function of the cosine.
    """

    name: ClassVar[str] = "mime"
    Options = MimeOptions
    refreshes: ClassVar[bool] = True

    def __init__(self, options: MimeOptions, task: TaskInfo) -> None:
        super().__init__(options, task)
        device = task.labels.device
        self.positive = torch.zeros(0, task.num_labels, dtype=torch.int8, device=device)
        # The rows of this rank's unlabelled samples; set by every refresh.
        self.pseudo = self.positive

    @staticmethod
    def auxiliary(options: Any, feature_dim: int, num_labels: int) -> nn.Module:
        return LatentVariance(feature_dim, num_labels)

    def _loss(self, cosine: Tensor, log_variance: Tensor, labels: Tensor) -> Tensor:
        mean = self.logits(cosine)
        bottleneck = self.options.bottleneck_weight * divergence_from_prior(mean, log_variance)
        return binary_loss(moderated_logits(mean, log_variance), labels) + bottleneck

    def labeled_loss(self, model: nn.Module, labeled: Minibatch, labels: Tensor) -> StepLoss:
        """Warm-up: cross-entropy of the latent variable plus its divergence, on the strong view."""
        (features,), (cosine,) = forward_together(model, (labeled, "strong"))
        loss = self._loss(cosine, auxiliary_of(model)(features), labels)
        return StepLoss(masked_batch_mean(loss, None, labeled.total))

    def semi_supervised_loss(
        self, model: nn.Module, labeled: Minibatch, labels: Tensor, unlabeled: Minibatch
    ) -> StepLoss:
        """The same loss on labelled samples and, with their current labels, on unlabelled ones."""
        features, cosines = forward_together(model, (labeled, "strong"), (unlabeled, "strong"))
        targets = labels, self.pseudo[unlabeled.rows]
        variance = auxiliary_of(model)
        on_labeled, on_unlabeled = (
            self._loss(cosine, variance(feature), target)
            for feature, cosine, target in zip(features, cosines, targets, strict=True)
        )
        return StepLoss(
            masked_batch_mean(on_labeled, None, labeled.total),
            self.unlabeled_weight * masked_batch_mean(on_unlabeled, None, unlabeled.total),
        )

    @torch.no_grad()
    def refresh(self, snapshot: Snapshot) -> None:
        """Make the entries above the threshold positive."""
        cosine, index = snapshot.unlabeled_cosine, snapshot.unlabeled_index
        samples = snapshot.num_labeled, len(cosine)
        labeled, unlabeled = (sum(distributed.row_counts(n, cosine.device)) for n in samples)
        if index is None:
            index = labeled + distributed.global_index(len(cosine), cosine.device)
        if not len(self.positive):
            self.positive = self.positive.new_zeros(labeled + unlabeled, self.task.num_labels)
        above = torch.sigmoid(self.logits(cosine)) > self.options.positive_threshold
        new = torch.zeros_like(self.positive)
        new[index] = above.to(new.dtype)
        (new,) = distributed.all_reduce_sum(new)
        self.positive = self.positive | new
        self.pseudo = self.positive[index]

    def pseudo_labels(self) -> tuple[Tensor, Tensor] | None:
        """All entries count as confident: those that are not positive are trained as negatives."""
        if not len(self.pseudo):
            return None
        return self.pseudo, torch.ones_like(self.pseudo, dtype=torch.bool)

    def state_dict(self) -> dict[str, Any]:
        return {"positive": self.positive}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.positive = state["positive"].to(self.task.labels.device)

    def epoch_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        return {}, {"pseudo": self.pseudo}

    def load_epoch_state(self, common: dict[str, Any], unlabeled: dict[str, Tensor]) -> None:
        self.pseudo = unlabeled["pseudo"].to(self.task.labels.device)
