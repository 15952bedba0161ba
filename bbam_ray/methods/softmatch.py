"""SoftMatch, one binary problem per label: all pseudo-labels are used, unconfident ones with less weight.

Paper: "[SoftMatch: Addressing the Quantity-Quality Trade-off in Semi-supervised
Learning](https://arxiv.org/abs/2301.10921)", ICLR 2023; the multi-label form implemented here is in
docs/method.md, section 11.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from bbam_ray.core.losses import binary_loss
from bbam_ray.methods.method import Minibatch, StepLoss, TaskInfo, masked_batch_mean
from bbam_ray.methods.scaled_cosine import StepLabelsMethod, forward_together
from bbam_ray.methods.step_statistics import StepAverage, StepStatisticsOptions, batch_means


class SoftmatchOptions(StepStatisticsOptions):
    """Options of the method ``softmatch``; the defaults are the published settings."""

    n_sigma: float = Field(
        2.0,
        gt=0,
        le=10,
        description="How steeply the weight of an entry falls below the mean confidence.",
    )


def aligned_probability(logits: Tensor, target: Tensor, predicted: Tensor) -> Tensor:
    """Distribution alignment p~ = p (t / q) / (p (t / q) + (1 - p) (1 - t) / (1 - q)).

    Computed as sigmoid(z + logit t - logit q), which is equal, and finite for every z.

    Args:
        logits: z, (B, K); p = sigmoid(z).
        target: t, (K,) in [0, 1]: positive frequency among the labelled samples. p~ is 0 for a label that
            none of them has, and 1 for a label that all of them have.
        predicted: q, (K,) in [0, 1]: mean of p over unlabelled samples; limited to [1e-6, 1 - 1e-6].

    Returns:
        p~, (B, K) in [0, 1], in the dtype of the logits.

    Source: [SoftMatch](https://arxiv.org/abs/2301.10921); docs/method.md, section 11.
    """
    shift = torch.logit(target.double()) - torch.logit(predicted.double(), eps=1e-6)
    return torch.sigmoid(logits.double() + shift).to(logits.dtype)


def truncated_gaussian(confidence: Tensor, mean: Tensor, variance: Tensor, width: float) -> Tensor:
    """Weight of a confidence: exp(-min(c - mu, 0)^2 n^2 / (2 var)), which is 1 from the mean upwards.

    Args:
        confidence: c, (B, K) in [1/2, 1].
        mean: mu, (K,) in [1/2, 1].
        variance: var, (K,), >= 0; with 0 only confidences that reach the mean have a weight.
        width: n > 0; the weight falls like a Gaussian with standard deviation sqrt(var) / n.

    Returns:
        (B, K) in [0, 1].

    Source: [SoftMatch](https://arxiv.org/abs/2301.10921); docs/method.md, section 11.
    """
    below = (confidence - mean).clamp_max(0)
    return torch.exp(-below.square() * width**2 / (2 * variance.clamp_min(1e-12)))


class Softmatch(StepLabelsMethod[SoftmatchOptions]):
    """The method ``softmatch``.

    State: mean probability, and mean and variance of the confidence, by label.

    Where the paper leaves room: the pseudo-label comes from p and the confidence max(p~, 1 - p~) from the
    aligned p~, as published, so alignment changes weights but no label. Both come from the weak view, by
    the trained model in training mode, in the forward pass that also sees the strong views. The
    statistics include a step's samples before they weigh them; the variance is unbiased. Averages
    have a warm-up (``StepAverage``), because a momentum of 0.999 is meant for runs of a million steps.
    """

    name: ClassVar[str] = "softmatch"
    Options = SoftmatchOptions

    def __init__(self, options: SoftmatchOptions, task: TaskInfo) -> None:
        super().__init__(options, task)
        momentum, device = options.step_momentum, task.labels.device
        self.probability = StepAverage((task.num_labels,), momentum, device)
        self.confidence = StepAverage((2, task.num_labels), momentum, device)

    def semi_supervised_loss(
        self, model: nn.Module, labeled: Minibatch, labels: Tensor, unlabeled: Minibatch
    ) -> StepLoss:
        """Cross-entropy on labelled entries, weighted cross-entropy on unlabelled ones, strong views."""
        _, (known, weak, strong) = forward_together(
            model, (labeled, "strong"), (unlabeled, "weak"), (unlabeled, "strong")
        )
        pseudo, weight = self.weigh(self.logits(weak), unlabeled.total)
        self.record(unlabeled, pseudo, weight >= 0.5)
        on_unlabeled = weight * binary_loss(self.logits(strong), pseudo)
        return StepLoss(
            masked_batch_mean(binary_loss(self.logits(known), labels), None, labeled.total),
            self.unlabeled_weight * masked_batch_mean(on_unlabeled, None, unlabeled.total),
        )

    @torch.no_grad()
    def weigh(self, logits: Tensor, total: int) -> tuple[Tensor, Tensor]:
        """Update the statistics with a step's samples, then compute their labels and weights.

        Args:
            logits: (B, K) of the weak view of this rank's share, which may be empty.
            total: samples of the step over all ranks.

        Returns:
            Pseudo-labels (B, K) bool and weights (B, K) in [0, 1].
        """
        (probability,) = batch_means(total, torch.sigmoid(logits))
        predicted = self.probability.update(probability)
        aligned = aligned_probability(logits, self.task.positive_frequency, predicted)
        confidence = torch.maximum(aligned, 1 - aligned).double()
        mean, square = batch_means(total, confidence, confidence.square())
        variance = (square - mean.square()).clamp_min(0) * (total / max(total - 1, 1))
        mean, variance = self.confidence.update(torch.stack([mean, variance]))
        weight = truncated_gaussian(confidence, mean, variance, self.options.n_sigma)
        return logits >= 0, weight.to(logits.dtype)

    def state_dict(self) -> dict[str, Any]:
        return {
            "probability": self.probability.state_dict(),
            "confidence": self.confidence.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.probability.load_state_dict(state["probability"])
        self.confidence.load_state_dict(state["confidence"])
