"""S2ML2-BBAM: semi-supervised multi-label learning with the balanced binary angular margin loss.

Paper: "[Semi-supervised Multi-label Learning with Balanced Binary Angular Margin
Loss](https://openreview.net/forum?id=AqcPvWwktK)", NeurIPS 2024. docs/method.md explains the method as it
is implemented here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from bbam_ray import distributed
from bbam_ray.core.angle_histogram import moments_and_histogram
from bbam_ray.core.losses import bbam_logits, bbam_loss
from bbam_ray.core.negatives import sample_negatives
from bbam_ray.core.prototypes import label_prototypes
from bbam_ray.core.rows import replace_in_blocks, row_blocks
from bbam_ray.core.statistics import AngleStatistics
from bbam_ray.methods.method import (
    Method,
    Minibatch,
    Snapshot,
    StepLoss,
    TaskInfo,
    concat_views,
    masked_batch_mean,
)
from bbam_ray.methods.refreshed_labels import PseudoLabels, uses_held_out
from bbam_ray.methods.shared_options import PseudoLabelOptions, ScaleOptions, unlabeled_weight


class BbamOptions(ScaleOptions, PseudoLabelOptions):
    """Options of the method ``bbam``; the defaults are the published settings (VOC)."""

    margin: float = Field(
        0.4, ge=0, le=2, description="Margin m that is subtracted from the cosine of positives."
    )
    negative_ratio: float | None = Field(
        5.0,
        ge=0,
        description="Number eta of negatives kept per positive, hardest first; null keeps all.",
    )
    labeled_negatives: Literal["refresh", "first", "all"] = Field(
        "refresh",
        description="Negatives of labelled samples in the loss of the main phase: those selected by every "
        "`refresh`, by the `first` refresh only, or `all`.",
    )
    statistics_momentum: float = Field(
        0.01, ge=0, lt=1, description="Weight g of the old angle statistics in a refresh."
    )
    balance: bool = Field(
        True, description="Balance the angle variances of positives and negatives."
    )
    clamp: bool = Field(False, description="Clamp balanced angles to [0, pi].")

    @model_validator(mode="before")
    @classmethod
    def _infinite_ratio(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("negative_ratio") == float("inf"):
            return {**values, "negative_ratio": None}
        return values


class Bbam(Method[BbamOptions]):
    """The method ``bbam``.

    State: angle statistics and prototypes of the labels; for each sample its pseudo-labels and the entries
    that the loss uses. A refresh updates all of it at the start of every main epoch.
    """

    name: ClassVar[str] = "bbam"
    Options = BbamOptions
    semi_supervised: ClassVar[bool] = True
    refreshes: ClassVar[bool] = True

    def __init__(self, options: BbamOptions, task: TaskInfo) -> None:
        super().__init__(options, task)
        device = task.labels.device
        self.statistics = self._identity = AngleStatistics.empty(task.num_labels, device)
        self.prototypes = torch.empty(task.num_labels, 0, device=device)
        # Histogram of the angles in the last refresh, for the records only.
        self._angle_counts: Tensor | None = None
        # Of this rank's samples; filled by the first refresh.
        self.assigned = PseudoLabels.none_yet(task)
        self.unlabeled_selected = self.assigned.confident
        self.labeled_selected = torch.ones_like(task.labels, dtype=torch.bool)

    @property
    def uses_held_out(self) -> bool:
        return uses_held_out(self.options)

    @property
    def unlabeled_weight(self) -> float:
        """lambda_u, the weight of the unlabelled loss."""
        return unlabeled_weight(self.options, self.task)

    def _map_statistics(self) -> AngleStatistics:
        """Statistics of the balance map: the measured ones, or empty ones if balancing is off."""
        return self.statistics if self.options.balance else self._identity

    def _loss(self, cosine: Tensor, labels: Tensor, statistics: AngleStatistics) -> Tensor:
        o = self.options
        return bbam_loss(cosine, labels, statistics, o.scale, o.margin, clamp=o.clamp)

    def labeled_loss(self, model: nn.Module, labeled: Minibatch, labels: Tensor) -> StepLoss:
        """Warm-up: margin loss with the identity map on every entry (docs/method.md, section 7)."""
        _, cosine = model(labeled.view("strong"))
        loss = self._loss(cosine, labels, self._identity)
        return StepLoss(masked_batch_mean(loss, None, labeled.total))

    def semi_supervised_loss(
        self, model: nn.Module, labeled: Minibatch, labels: Tensor, unlabeled: Minibatch
    ) -> StepLoss:
        """Balanced loss on selected entries of labelled and unlabelled samples, in one forward pass.

        L = (1/B_l) sum of labelled entries + lambda_u (1/B_u) sum of unlabelled entries, strong views.
        Source: docs/method.md, section 3.
        """
        _, cosine = model(concat_views(labeled.view("strong"), unlabeled.view("strong")))
        targets = torch.cat([labels.to(torch.int8), self.assigned.labels[unlabeled.rows]])
        loss = self._loss(cosine, targets, self._map_statistics())
        on_labeled, on_unlabeled = loss.split([len(labeled.rows), len(unlabeled.rows)])
        on_unlabeled = self.assigned.weighted(on_unlabeled, unlabeled.rows)
        return StepLoss(
            masked_batch_mean(on_labeled, self.labeled_selected[labeled.rows], labeled.total),
            self.unlabeled_weight
            * masked_batch_mean(
                on_unlabeled, self.unlabeled_selected[unlabeled.rows], unlabeled.total
            ),
        )

    @torch.no_grad()
    def refresh(self, snapshot: Snapshot) -> None:
        """Update pseudo-labels, prototypes, angle statistics and negatives, in this order.

        Source: docs/method.md, section 4.
        """
        o, known = self.options, self.task.labels
        logits = replace_in_blocks(self.logits, snapshot.unlabeled_cosine)
        assigned = PseudoLabels.assigned(o, self.task, snapshot, logits)
        is_first = not len(self.prototypes.T)
        # Labelled samples first. The unlabelled part stays a view of the joint matrix, to save memory.
        labels, features = torch.cat([known, assigned.labels]), snapshot.features
        valid = torch.cat([torch.ones_like(known, dtype=torch.bool), assigned.confident])
        self.assigned = replace(
            assigned, labels=labels[len(known) :], confident=valid[len(known) :]
        )
        self.prototypes = label_prototypes(features, labels, valid)
        moments, self._angle_counts = moments_and_histogram(
            features, labels, valid, self.prototypes
        )
        self.statistics = self.statistics.update(moments, o.statistics_momentum)
        ratio = float("inf") if o.negative_ratio is None else o.negative_ratio
        selected = sample_negatives(features, self.prototypes, labels, valid, ratio, snapshot.index)
        for rows in row_blocks(*labels.shape, device=labels.device):  # the loss uses every positive
            selected[rows] |= valid[rows] & (labels[rows] == 1)
        on_labeled, self.unlabeled_selected = selected.split([len(known), len(labels) - len(known)])
        # Before the first refresh every labelled entry is selected.
        if o.labeled_negatives == "refresh" or (o.labeled_negatives == "first" and is_first):
            self.labeled_selected = on_labeled

    def logits(self, cosine: Tensor) -> Tensor:
        """z at y = 1/2, so that 0 is half-way between the targets of the two polarities."""
        o, statistics = self.options, self._map_statistics()
        return bbam_logits(cosine, 0.5, statistics, o.scale, o.margin, clamp=o.clamp)

    def pseudo_labels(self) -> tuple[Tensor, Tensor] | None:
        labels, confident = self.assigned.labels, self.assigned.confident
        return (labels, confident) if len(self.prototypes.T) else None

    def label_records(self) -> dict[str, Tensor]:
        means, variances = self.statistics.means, self.statistics.variances
        counts = self.statistics.counts
        assert counts is not None
        records = {
            "prior": self.task.positive_frequency,
            "n_negative": counts[0],
            "n_positive": counts[1],
            "mean_negative": means[0],
            "mean_positive": means[1],
            "variance_negative": variances[0],
            "variance_positive": variances[1],
            "vdfd": (variances[0] - variances[1]).abs(),
        } | self.assigned.label_records()
        if self._angle_counts is not None:
            selected = (self.labeled_selected & (self.task.labels == 0)).sum(0)
            selected = selected + (self.unlabeled_selected & (self.assigned.labels == 0)).sum(0)
            (records["n_negative_kept"],) = distributed.all_reduce_sum(selected)
            records["angles_negative"], records["angles_positive"] = self._angle_counts
        return records

    def scoring_state(self) -> dict[str, Tensor]:
        return self.statistics.state_dict()

    def load_scoring_state(self, state: dict[str, Tensor]) -> None:
        device = self.task.labels.device
        self.statistics = AngleStatistics.from_state_dict(state).to(device)

    def state_dict(self) -> dict[str, Any]:
        return {"statistics": self.statistics.state_dict(), "prototypes": self.prototypes}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.load_scoring_state(state["statistics"])
        self.prototypes = state["prototypes"].to(self.task.labels.device)

    def sample_state(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        unlabeled = self.assigned.sample_state() | {"selected": self.unlabeled_selected}
        return {"selected": self.labeled_selected}, unlabeled

    def load_sample_state(self, labeled: dict[str, Tensor], unlabeled: dict[str, Tensor]) -> None:
        device = self.task.labels.device
        self.labeled_selected = labeled["selected"].to(device)
        self.assigned = PseudoLabels.from_sample_state(unlabeled, self.task)
        self.unlabeled_selected = unlabeled["selected"].to(device)

    def epoch_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        common = {"thresholds": self.assigned.thresholds, "angle_counts": self._angle_counts}
        return common, {}

    def load_epoch_state(self, common: dict[str, Any], unlabeled: dict[str, Tensor]) -> None:
        self.assigned = replace(self.assigned, thresholds=common["thresholds"])
        counts = common["angle_counts"]
        self._angle_counts = None if counts is None else counts.to(self.task.labels.device)
