"""D2L with metric-adaptive thresholds: a head of its own for pseudo-labels.

Paper: "[Dual-Decoupling Learning and Metric-Adaptive Thresholding for Semi-Supervised Multi-Label
Learning](https://arxiv.org/abs/2407.18624)", ECCV 2024; the form implemented here is in docs/methods.md.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from bbam_ray.methods.cap import Cap, CapOptions
from bbam_ray.methods.method import Minibatch, StepLoss, masked_batch_mean
from bbam_ray.methods.scaled_cosine import auxiliary_of, forward_together
from bbam_ray.models.network import CosineHead, Network


class D2lOptions(CapOptions):
    """Options of the method ``d2l``; the defaults are the published settings, which use all entries."""

    pseudo_labels: Literal["frequency", "metric", "midrange"] = Field(
        "metric", description=CapOptions.model_fields["pseudo_labels"].description
    )
    negative_keep: float = Field(
        1.0, ge=0, le=1, description=CapOptions.model_fields["negative_keep"].description
    )


class D2l(Cap):
    """The method ``d2l``.

    ``model.head`` learns from labelled samples only; it makes the pseudo-labels and it is the one that
    scores. A second head starts the main phase as a copy of it and learns from pseudo-labels only, so that
    wrong ones reach the first head through the features alone. The backbone gets both gradients.

    What is left out or differs: the published method has the same two heads once more for patches, four
    for each image, which is five forward passes per view instead of one; here there is no patch branch
    for any kind of sample. Thresholds come from validation samples, not from the samples that are trained
    on, and labels with few positives there follow their frequency. Pseudo-labels are assigned by the
    averaged model once an epoch instead of in every step.
    """

    name: ClassVar[str] = "d2l"
    Options = D2lOptions

    @staticmethod
    def auxiliary(options: Any, feature_dim: int, num_labels: int) -> nn.Module:
        return CosineHead(feature_dim, num_labels)

    @torch.no_grad()
    def start_main_phase(self, model: nn.Module) -> None:
        """Copy the head to the one for pseudo-labels."""
        head, second = cast(Network, model).head, cast(CosineHead, auxiliary_of(model))
        second.weight.copy_(head.weight)

    def semi_supervised_loss(
        self, model: nn.Module, labeled: Minibatch, labels: Tensor, unlabeled: Minibatch
    ) -> StepLoss:
        """Asymmetric loss of the first head on labelled, of the second on unlabelled strong views."""
        features, cosines = forward_together(model, (labeled, "strong"), (unlabeled, "strong"))
        on_labeled = self._loss(cosines[0], labels)
        return StepLoss(
            masked_batch_mean(on_labeled, None, labeled.total),
            self.on_unlabeled(auxiliary_of(model)(features[1]), unlabeled),
        )
