"""FlatMatch, one binary problem per label: consistency at the worst-case weights of the labelled loss.

Paper: "[FlatMatch: Bridging Labeled Data and Unlabeled Data with Cross-Sharpness for Semi-Supervised
Learning](https://arxiv.org/abs/2310.16412)", NeurIPS 2023. Thresholds: "[FreeMatch: Self-adaptive
Thresholding for Semi-supervised Learning](https://arxiv.org/abs/2205.07246)", ICLR 2023. The multi-label
form of both is in docs/method.md, section 11.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call

from bbam_ray import distributed
from bbam_ray.core.losses import binary_loss
from bbam_ray.methods.method import Minibatch, StepLoss, TaskInfo, masked_batch_mean
from bbam_ray.methods.scaled_cosine import StepLabelsMethod, forward_together
from bbam_ray.methods.step_statistics import StepAverage, StepStatisticsOptions, batch_means

# Half-precision gradients below 6e-8 vanish; dividing by a power of two again causes no rounding.
_HEADROOM = 2.0**10


class FlatmatchOptions(StepStatisticsOptions):
    """Options of the method ``flatmatch``; the defaults are the published settings."""

    perturbation: float = Field(
        0.05, ge=0, le=1, description="Length rho of the step to the worst-case weights."
    )


def self_adaptive_thresholds(confidence: Tensor, probability: Tensor) -> Tensor:
    """Thresholds of the confidence max(p, 1 - p) by polarity and label (FreeMatch's local thresholds).

    tau_1k = tau e_k / max_j e_j and tau_0k = tau (1 - e_k) / max_j (1 - e_j), where tau is the mean
    confidence over all labels and e_k the mean of p. A label that is predicted less often than others
    has a lower threshold.

    Args:
        confidence: (K,) in [1/2, 1], mean of max(p, 1 - p).
        probability: e, (K,) in [0, 1], mean of p.

    Returns:
        (2, K) in [0, 1]: thresholds of negatives, then of positives.

    Source: [FreeMatch](https://arxiv.org/abs/2205.07246); docs/method.md, section 11.
    """
    expected = torch.stack([1 - probability, probability])
    return confidence.mean() * expected / expected.amax(1, keepdim=True).clamp_min(1e-12)


def labeled_gradients(loss: Tensor, parameters: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Gradient of this rank's share of the labelled loss; frees its part of the graph.

    A collective call if batch norm is synchronized: every rank calls it, also with an empty share. The
    loss of an empty share is a sum over no entries of the same graph, so the backward pass meets the
    same batch norms in the same order on all ranks.

    Args:
        loss: scalar, this rank's share.
        parameters: of the network; all take part in the loss.

    Returns:
        The gradient of each parameter, this rank's share.
    """
    # Autocast is for forward passes; the backward pass uses the precision of each recorded operation.
    with torch.autocast(loss.device.type, enabled=False):
        gradients = torch.autograd.grad(loss * _HEADROOM, parameters)
    return tuple(gradient / _HEADROOM for gradient in gradients)


def ascent(gradients: Sequence[Tensor], length: float) -> list[Tensor]:
    """The step rho g / |g| along the gradient g, summed over ranks; zero if g is 0.

    Args:
        gradients: this rank's shares of g.
        length: rho >= 0.

    Returns:
        The step of each parameter, equal on all ranks.
    """
    summed = distributed.all_reduce_sum(*gradients)
    norm = torch.nn.utils.get_total_norm(summed)
    return [length * gradient / norm.clamp_min(1e-12) for gradient in summed]


class Flatmatch(StepLabelsMethod[FlatmatchOptions]):
    """The method ``flatmatch``.

    State: mean confidence and mean probability by label, from which the thresholds follow.

    The gradient of a step is that of the labelled loss at the weights w, plus that of the consistency loss
    at w + rho g/|g|, where g is the former, summed over all ranks. This needs one more message of the
    size of the gradients.

    Where the paper leaves room: the consistency loss is the only loss of unlabelled samples; it replaces
    the one of FixMatch. Pseudo-labels come from the weak view, by the model at w in training mode, in the
    forward pass that also sees the labelled samples. The second forward pass normalises by its own batch
    and does not update running statistics. The classes of FreeMatch are the labels, once for each
    polarity; with the two polarities of a label as classes, the rare one would pass at any confidence,
    and on digits false positives then spread. Averages have a warm-up (``StepAverage``) and include a
    step's samples before the thresholds are applied to them.
    """

    name: ClassVar[str] = "flatmatch"
    Options = FlatmatchOptions

    def __init__(self, options: FlatmatchOptions, task: TaskInfo) -> None:
        super().__init__(options, task)
        self.averages = StepAverage((2, task.num_labels), options.step_momentum, task.labels.device)

    def semi_supervised_loss(
        self, model: nn.Module, labeled: Minibatch, labels: Tensor, unlabeled: Minibatch
    ) -> StepLoss:
        """Labelled loss, and consistency of the perturbed model on confident entries."""
        _, (known, weak) = forward_together(model, (labeled, "strong"), (unlabeled, "weak"))
        loss = masked_batch_mean(binary_loss(self.logits(known), labels), None, labeled.total)
        pseudo, confident = self.judge(self.logits(weak), unlabeled.total)
        self.record(unlabeled, pseudo, confident)
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        gradients = labeled_gradients(loss, list(trained.values()))
        # Linear in the weights, with g as its gradient: one backward pass over the samples is enough.
        surrogate = torch.stack(
            [(p * g).sum() for p, g in zip(trained.values(), gradients, strict=True)]
        ).sum()
        steps = ascent(gradients, self.options.perturbation)
        moved = {name: p + step for (name, p), step in zip(trained.items(), steps, strict=True)}
        buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        _, strong = functional_call(model, moved | buffers, (unlabeled.view("strong"),))
        on_unlabeled = binary_loss(self.logits(strong), pseudo)
        return StepLoss(
            loss.detach() + (surrogate - surrogate.detach()),
            self.unlabeled_weight * masked_batch_mean(on_unlabeled, confident, unlabeled.total),
        )

    @torch.no_grad()
    def judge(self, logits: Tensor, total: int) -> tuple[Tensor, Tensor]:
        """Update the thresholds with a step's samples, then apply them.

        Args:
            logits: (B, K) of the weak view of this rank's share, which may be empty.
            total: samples of the step over all ranks.

        Returns:
            Pseudo-labels (B, K) bool and confident (B, K) bool.
        """
        probability = torch.sigmoid(logits.double())
        confidence = torch.maximum(probability, 1 - probability)
        means = self.averages.update(torch.stack(batch_means(total, confidence, probability)))
        negative, positive = self_adaptive_thresholds(means[0], means[1])
        pseudo = logits >= 0
        return pseudo, confidence >= torch.where(pseudo, positive, negative)

    def state_dict(self) -> dict[str, Any]:
        return self.averages.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.averages.load_state_dict(state)
