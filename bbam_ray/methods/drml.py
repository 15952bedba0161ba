"""DRML: two classifiers trained against the features, and a network of relations between labels.

Paper: "[Dual Relation Semi-Supervised Multi-Label
Learning](https://doi.org/10.1609/aaai.v34i04.6089)", AAAI 2020; the form implemented here is in
docs/method.md, section 11.
"""

from __future__ import annotations

from typing import Any, ClassVar, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from bbam_ray.core.losses import binary_loss
from bbam_ray.methods.method import Minibatch, StepLoss, masked_batch_mean
from bbam_ray.methods.scaled_cosine import (
    ScaledCosineOptions,
    StepLabelsMethod,
    auxiliary_of,
    forward_together,
)
from bbam_ray.models.network import CosineHead, Network


class DrmlOptions(ScaledCosineOptions):
    """Options of the method ``drml``; no published settings are known, so digits decided the defaults."""

    unlabeled_weight: float | None = Field(
        0.3,
        ge=0,
        description="Weight lambda_u of the unlabelled samples in the loss; null uses unlabeled_batch / "
        "labeled_batch.",
    )
    discrepancy_weight: float = Field(
        1.0,
        ge=0,
        le=100,
        description="Weight of the adversarial discrepancy between the two classifiers.",
    )
    agreement: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Mean |p1 - p2| of the two classifiers below which an unlabelled sample is used.",
    )
    relation_dim: int = Field(
        128, ge=1, description="Width of the relation network's hidden layer."
    )


class DualRelation(nn.Module):
    """The second classifier, and the relation network from K x K products of predictions to K labels.

    Args:
        feature_dim: D.
        num_labels: K.
        relation_dim: width of the hidden layer.
    """

    def __init__(self, feature_dim: int, num_labels: int, relation_dim: int) -> None:
        super().__init__()
        self.second = CosineHead(feature_dim, num_labels)
        self.relation = nn.Sequential(
            nn.Linear(num_labels**2, relation_dim), nn.GELU(), nn.Linear(relation_dim, num_labels)
        )

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Map the probabilities (B, K) of both classifiers to logits (B, K)."""
        products = first.unsqueeze(2) * second.unsqueeze(1)
        logits: Tensor = self.relation(products.flatten(1))
        return logits.float()


def reversed_gradient(features: Tensor) -> Tensor:
    """The same values with the opposite gradient (gradient reversal).

    A loss that the classifiers behind it minimise is thereby maximised by the layers before it.

    Args:
        features: of any shape.
    """
    return 2 * features.detach() - features


class Drml(StepLabelsMethod[DrmlOptions]):
    """The method ``drml``.

    It has no state: ``model.head`` is the first classifier, and the one that scores. Labelled samples
    train both classifiers and the relation network, end to end. On unlabelled samples the discrepancy
    |p1 - p2|, summed over labels like every loss, is maximised by the classifiers and minimised by
    backbone and projector.

    Where the paper leaves room: the adversarial game is one step with a reversed gradient instead of
    three alternating steps. It uses the weak view, and so does the agreement that decides whether a sample
    is used. Such samples train both classifiers on the strong view, with the relation network's
    prediction for the weak view as a soft label without gradient. The reported unlabelled loss can be
    negative, since it contains minus the discrepancy.
    """

    name: ClassVar[str] = "drml"
    Options = DrmlOptions

    @staticmethod
    def auxiliary(options: Any, feature_dim: int, num_labels: int) -> nn.Module:
        return DualRelation(feature_dim, num_labels, options.relation_dim)

    def labeled_loss(self, model: nn.Module, labeled: Minibatch, labels: Tensor) -> StepLoss:
        """Warm-up: cross-entropy of both classifiers and of the relation network, strong view."""
        (features,), (cosine,) = forward_together(model, (labeled, "strong"))
        return StepLoss(self._on_labeled(model, features, cosine, labeled, labels))

    def semi_supervised_loss(
        self, model: nn.Module, labeled: Minibatch, labels: Tensor, unlabeled: Minibatch
    ) -> StepLoss:
        """Labelled loss, loss of the agreeing unlabelled samples, and minus the discrepancy."""
        features, cosines = forward_together(
            model, (labeled, "strong"), (unlabeled, "weak"), (unlabeled, "strong")
        )
        o, auxiliary = self.options, cast(DualRelation, auxiliary_of(model))
        reversed_ = reversed_gradient(features[1])
        first = torch.sigmoid(self.logits(cast(Network, model).head(reversed_)))
        second = torch.sigmoid(self.logits(auxiliary.second(reversed_)))
        discrepancy = (first - second).abs()
        with torch.no_grad():
            soft = torch.sigmoid(auxiliary(first, second))
            agrees = discrepancy.mean(1, keepdim=True) < o.agreement
            self.record(unlabeled, soft >= 0.5, agrees)
        on_agreeing = self._classified(auxiliary, features[2], cosines[2], soft)
        return StepLoss(
            self._on_labeled(model, features[0], cosines[0], labeled, labels),
            self.unlabeled_weight * masked_batch_mean(on_agreeing, agrees, unlabeled.total)
            - o.discrepancy_weight * masked_batch_mean(discrepancy, None, unlabeled.total),
        )

    def _classified(
        self, auxiliary: DualRelation, features: Tensor, cosine: Tensor, labels: Tensor
    ) -> Tensor:
        """Sum of the cross-entropies (B, K) of both classifiers; labels in [0, 1]."""
        second = self.logits(auxiliary.second(features))
        return binary_loss(self.logits(cosine), labels) + binary_loss(second, labels)

    def _on_labeled(
        self, model: nn.Module, features: Tensor, cosine: Tensor, labeled: Minibatch, labels: Tensor
    ) -> Tensor:
        auxiliary = cast(DualRelation, auxiliary_of(model))
        first, second = self.logits(cosine), self.logits(auxiliary.second(features))
        related = auxiliary(torch.sigmoid(first), torch.sigmoid(second))
        losses = (binary_loss(logits, labels) for logits in (first, second, related))
        return masked_batch_mean(sum(losses, torch.zeros_like(first)), None, labeled.total)
