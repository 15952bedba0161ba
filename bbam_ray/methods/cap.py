"""CAP: class-distribution-aware pseudo-labels and the asymmetric loss.

Paper: "[Class-Distribution-Aware Pseudo-Labeling for Semi-Supervised Multi-Label
Learning](https://arxiv.org/abs/2305.02795)", NeurIPS 2023; the form implemented here is in docs/method.md,
section 11.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from bbam_ray.core.losses import asymmetric_loss
from bbam_ray.core.pseudo_labels import assign_pseudo_labels
from bbam_ray.core.rows import replace_in_blocks
from bbam_ray.methods.method import Minibatch, Snapshot, StepLoss, TaskInfo, masked_batch_mean
from bbam_ray.methods.scaled_cosine import ScaledCosineMethod, forward_together
from bbam_ray.methods.shared_options import (
    AsymmetricLossOptions,
    PseudoLabelOptions,
    ScaleOptions,
    pseudo_label_scores,
)


class CapOptions(ScaleOptions, PseudoLabelOptions, AsymmetricLossOptions):
    """Options of the method ``cap``; the defaults are the published settings.

    The published implementation limits the share of confident negatives to 0.998, even if it is set to 1.
    """


class Cap(ScaledCosineMethod[CapOptions]):
    """The method ``cap``.

    State: pseudo-labels of this rank's unlabelled samples, replaced by every refresh.
    """

    name: ClassVar[str] = "cap"
    Options = CapOptions
    refreshes: ClassVar[bool] = True

    def __init__(self, options: CapOptions, task: TaskInfo) -> None:
        super().__init__(options, task)
        self.pseudo = torch.zeros(0, task.num_labels, dtype=torch.int8, device=task.labels.device)
        self.confident = self.pseudo.bool()

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
        on_unlabeled = self._loss(cosines[1], self.pseudo[unlabeled.rows])
        return StepLoss(
            masked_batch_mean(on_labeled, None, labeled.total),
            self.unlabeled_weight
            * masked_batch_mean(on_unlabeled, self.confident[unlabeled.rows], unlabeled.total),
        )

    @torch.no_grad()
    def refresh(self, snapshot: Snapshot) -> None:
        """Assign pseudo-labels by the scores of the averaged model (docs/method.md, section 5)."""
        scores = replace_in_blocks(self.logits, snapshot.unlabeled_cosine)
        self.pseudo, self.confident = assign_pseudo_labels(
            pseudo_label_scores(self.options, self.task.labels, snapshot, scores),
            self.task.positive_frequency,
            positive_keep=self.options.positive_keep,
            negative_keep=self.options.negative_keep,
            index=snapshot.unlabeled_index,
        )

    def pseudo_labels(self) -> tuple[Tensor, Tensor] | None:
        return (self.pseudo, self.confident) if len(self.pseudo) else None

    def sample_state(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        return {}, {"pseudo": self.pseudo, "confident": self.confident}

    def load_sample_state(self, labeled: dict[str, Tensor], unlabeled: dict[str, Tensor]) -> None:
        device = self.task.labels.device
        self.pseudo = unlabeled["pseudo"].to(device)
        self.confident = unlabeled["confident"].to(device)
