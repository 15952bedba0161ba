"""FlatMatch, one binary problem per label: consistency at the weights that are worst for the labelled.

Paper: "FlatMatch: Bridging Labeled Data and Unlabeled Data with Cross-Sharpness for Semi-Supervised
Learning", NeurIPS 2023; thresholds of "FreeMatch: Self-adaptive Thresholding for Semi-supervised
Learning", ICLR 2023; both in the multi-label form of method section 11.
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

# Half-precision gradients below 6e-8 vanish; a power of two is taken back without rounding.
_HEADROOM = 2.0**10


class FlatmatchOptions(StepStatisticsOptions):
    """Options of the method ``flatmatch``; the defaults are the published settings."""

    perturbation: float = Field(
        0.05, ge=0, le=1, description="Length rho of the step to the worst-case weights."
    )


def self_adaptive_thresholds(confidence: Tensor, probability: Tensor) -> Tensor:
    """What the confidence max(p, 1 - p) must reach (FreeMatch's local thresholds, for either polarity).

    tau_1k = tau e_k / max_j e_j and tau_0k = tau (1 - e_k) / max_j (1 - e_j), tau the mean confidence
    over all labels and e_k the mean of p: what is predicted less often than elsewhere is let in sooner.

    Args:
        confidence: (K,) in [1/2, 1], mean of max(p, 1 - p).
        probability: (K,) in [0, 1], mean of p.

    Returns:
        (2, K): of negatives, then positives.
    """
    expected = torch.stack([1 - probability, probability])
    return confidence.mean() * expected / expected.amax(1, keepdim=True).clamp_min(1e-12)


def labeled_gradients(loss: Tensor, parameters: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Gradient of this rank's share of the labelled loss; its part of the graph is freed.

    A collective where batch norm is synchronized: every rank calls it, with an empty share too. The loss
    of none is a sum over no entries, which hangs on the same graph, so the backward pass meets the same
    batch norms in the same order on all ranks.
    """
    # Autocast is for forward passes; the backward one takes the precision of each of its steps.
    with torch.autocast(loss.device.type, enabled=False):
        gradients = torch.autograd.grad(loss * _HEADROOM, parameters)
    return tuple(gradient / _HEADROOM for gradient in gradients)


def ascent(gradients: Sequence[Tensor], length: float) -> list[Tensor]:
    """The step rho g / |g| along the sum g of all ranks' gradients; nothing where g is 0."""
    summed = distributed.all_reduce_sum(*gradients)
    norm = torch.nn.utils.get_total_norm(summed)
    return [length * gradient / norm.clamp_min(1e-12) for gradient in summed]


class Flatmatch(StepLabelsMethod):
    """State: mean confidence and mean probability per label, which make the thresholds.

    A step's gradient: that of the labelled loss at the weights w, and that of the consistency loss at
    w + rho g/|g|, g being the former's sum over all ranks, which is sent for it once more.

    Where the text leaves room: the consistency loss is all that unlabelled samples contribute, so it
    stands for that of FixMatch and not beside it. Labels are those of the weak view, by the model at w in
    training mode, in the pass that sees the labelled samples. The second pass normalises by its own
    batch, whose moments reach no running statistics. FreeMatch's classes are the labels, once for
    each polarity: with the two polarities of a label as classes, the rare one would be let in whatever
    its confidence, and on digits false positives then spread. Averages have a warm-up
    (``StepAverage``), and take a step's samples in before they judge them.
    """

    name: ClassVar[str] = "flatmatch"
    Options = FlatmatchOptions
    options: FlatmatchOptions

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
        """Renew the thresholds with a step's samples; their labels and which reach them, each (B, K).

        Args:
            logits: (B, K) of the weak view of this rank's share, which may be empty.
            total: samples of the step over all ranks.
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
