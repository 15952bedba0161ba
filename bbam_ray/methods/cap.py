"""CAP: class-distribution-aware pseudo-labels and the asymmetric loss.

Paper: "[Class-Distribution-Aware Pseudo-Labeling for Semi-Supervised Multi-Label
Learning](https://arxiv.org/abs/2305.02795)", NeurIPS 2023; the form implemented here is in docs/method.md,
section 11.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from bbam_ray.core.losses import asymmetric_loss
from bbam_ray.methods.method import Minibatch, StepLoss, masked_batch_mean
from bbam_ray.methods.refreshed_labels import RefreshedLabelsMethod, RefreshedOptions
from bbam_ray.methods.scaled_cosine import forward_together
from bbam_ray.methods.shared_options import AsymmetricLossOptions


class CapOptions(RefreshedOptions, AsymmetricLossOptions):
    """Options of the method ``cap``; the defaults are the published settings.

    The published implementation limits the share of confident negatives to 0.998, even if it is set to 1.
    """


class Cap(RefreshedLabelsMethod[CapOptions]):
    """The method ``cap``."""

    name: ClassVar[str] = "cap"
    Options = CapOptions

    def _loss(self, cosine: Tensor, labels: Tensor) -> Tensor:
        o = self.options
        return asymmetric_loss(
            self.logits(cosine), labels, gamma_negative=o.gamma_negative, clip=o.clip
        )

    def labeled_loss(self, model: nn.Module, labeled: Minibatch, labels: Tensor) -> StepLoss:
        """Warm-up: asymmetric loss on the strong view."""
        _, (cosine,) = forward_together(model, (labeled, "strong"))
        return StepLoss(masked_batch_mean(self._loss(cosine, labels), None, labeled.total))

    def semi_supervised_loss(
        self, model: nn.Module, labeled: Minibatch, labels: Tensor, unlabeled: Minibatch
    ) -> StepLoss:
        """Asymmetric loss on labelled entries and on confident unlabelled ones, strong views."""
        _, cosines = forward_together(model, (labeled, "strong"), (unlabeled, "strong"))
        on_labeled = self._loss(cosines[0], labels)
        return StepLoss(
            masked_batch_mean(on_labeled, None, labeled.total),
            self.on_unlabeled(cosines[1], unlabeled),
        )

    def on_unlabeled(self, cosine: Tensor, unlabeled: Minibatch) -> Tensor:
        """lambda_u times the weighted loss of confident pseudo-labels.

        Args:
            cosine: (B, K) of this rank's share of the unlabelled samples.
            unlabeled: the samples.

        Returns:
            Scalar, this rank's share.
        """
        rows, pseudo = unlabeled.rows, self.assigned
        loss = pseudo.weighted(self._loss(cosine, pseudo.labels[rows]), rows)
        confident = pseudo.confident[rows]
        return self.unlabeled_weight * masked_batch_mean(loss, confident, unlabeled.total)
