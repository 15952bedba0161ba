"""Pseudo-labels that a refresh assigns for an epoch, with confidence, weights and thresholds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from bbam_ray import distributed
from bbam_ray.core.held_out_thresholds import (
    counts_beyond,
    expected_counts,
    metric_thresholds,
    midrange_thresholds,
)
from bbam_ray.core.pseudo_label_weights import measured_shares, pseudo_label_weights
from bbam_ray.core.pseudo_labels import assign_pseudo_labels
from bbam_ray.core.rows import replace_in_blocks
from bbam_ray.methods.method import HeldOut, Snapshot, TaskInfo
from bbam_ray.methods.scaled_cosine import ScaledCosineMethod
from bbam_ray.methods.shared_options import PseudoLabelOptions, ScaleOptions, pseudo_label_scores


class RefreshedOptions(ScaleOptions, PseudoLabelOptions):
    """Options of a method with scaled cosines as logits whose pseudo-labels are assigned by refreshes."""


RefreshedT = TypeVar("RefreshedT", bound=RefreshedOptions)


@dataclass(frozen=True)
class PseudoLabels:
    """Pseudo-labels of this rank's unlabelled samples.

    Args:
        labels: (N_u, K) int8 0/1.
        confident: (N_u, K) bool, the entries that the loss may use.
        weight: (N_u, K) float32 in [0, 1], of each entry in the loss; None = 1.
        thresholds: (2, K) float64 on the CPU, of negatives and positives, as logits; NaN where a label
            follows its frequency.
    """

    labels: Tensor
    confident: Tensor
    weight: Tensor | None
    thresholds: Tensor

    @classmethod
    def none_yet(cls, task: TaskInfo) -> PseudoLabels:
        """Before the first refresh."""
        labels = torch.zeros(0, task.num_labels, dtype=torch.int8, device=task.labels.device)
        return cls(labels, labels.bool(), None, _no_thresholds(task))

    @classmethod
    def assigned(
        cls, options: PseudoLabelOptions, task: TaskInfo, snapshot: Snapshot, logits: Tensor
    ) -> PseudoLabels:
        """Assign pseudo-labels; every rank calls this.

        Thresholds say how many entries of a label are positive, by the logits, or, if they are from
        another model, by the share of its held-out samples. Which ones these are
        follows from the scores, which differ from the logits if a graph takes part. Weights follow
        from the logits.

        Args:
            options: of the method.
            task: of the method.
            snapshot: of this rank's samples.
            logits: (N_u, K) float32 of the averaged model.

        Source: docs/method.md, section 5.
        """
        thresholds = _thresholds(options, task, snapshot.held_out)
        labels, confident = assign_pseudo_labels(
            pseudo_label_scores(options, task.labels, snapshot, logits),
            task.positive_frequency,
            positive_keep=options.positive_keep,
            negative_keep=options.negative_keep,
            index=snapshot.unlabeled_index,
            counts=_counts(thresholds, snapshot.held_out, logits),
        )
        weight = _weights(options, snapshot.held_out, logits, labels)
        return cls(labels, confident, weight, thresholds)

    def weighted(self, loss: Tensor, rows: Tensor) -> Tensor:
        """A loss (B, K) of some rows, times the weights of their entries."""
        return loss if self.weight is None else loss * self.weight[rows]

    def label_records(self) -> dict[str, Tensor]:
        """Thresholds for the results, if there are any."""
        if self.thresholds.isnan().all():
            return {}
        negative, positive = self.thresholds
        return {"pseudo_threshold_negative": negative, "pseudo_threshold_positive": positive}

    def sample_state(self) -> dict[str, Tensor]:
        """Rows of this rank's samples, for a checkpoint."""
        state = {"pseudo": self.labels, "confident": self.confident}
        return state if self.weight is None else state | {"weight": self.weight}

    @classmethod
    def from_sample_state(cls, state: dict[str, Tensor], task: TaskInfo) -> PseudoLabels:
        """Restore ``sample_state``; thresholds, which the next refresh replaces, are not in it."""
        tensors = {name: tensor.to(task.labels.device) for name, tensor in state.items()}
        return cls(
            tensors["pseudo"], tensors["confident"], tensors.get("weight"), _no_thresholds(task)
        )


def uses_held_out(options: PseudoLabelOptions) -> bool:
    """Whether pseudo-labels or their weights need held-out scores."""
    return options.pseudo_labels != "frequency" or options.pseudo_label_weight == "measured"


def _no_thresholds(task: TaskInfo) -> Tensor:
    return torch.full((2, task.num_labels), torch.nan, dtype=torch.float64)


def _thresholds(options: PseudoLabelOptions, task: TaskInfo, held_out: HeldOut | None) -> Tensor:
    if held_out is None or options.pseudo_labels == "frequency":
        return _no_thresholds(task)
    known, at_least = (held_out.logits, held_out.labels), options.threshold_positives
    if options.pseudo_labels == "metric":
        return metric_thresholds(*known, beta=options.threshold_beta, at_least=at_least)
    return midrange_thresholds(*known, at_least=at_least)


def _counts(thresholds: Tensor, held_out: HeldOut | None, logits: Tensor) -> Tensor | None:
    if held_out is None or thresholds.isnan().all():
        return None
    if held_out.of_this_model:
        return counts_beyond(logits, thresholds)
    num_samples = sum(distributed.row_counts(len(logits), logits.device))
    return expected_counts(held_out.logits, thresholds, num_samples)


def _weights(
    options: PseudoLabelOptions, held_out: HeldOut | None, logits: Tensor, labels: Tensor
) -> Tensor | None:
    if options.pseudo_label_weight == "confidence":
        return pseudo_label_weights(logits, labels)
    if options.pseudo_label_weight == "measured" and held_out is not None:
        shares = measured_shares(held_out.logits, held_out.labels)
        return pseudo_label_weights(logits, labels, shares)
    return None


class RefreshedLabelsMethod(ScaledCosineMethod[RefreshedT]):
    """A method with scaled cosines as logits whose pseudo-labels are assigned by refreshes.

    State: pseudo-labels of this rank's unlabelled samples, replaced by every refresh.
    """

    refreshes: ClassVar[bool] = True

    def __init__(self, options: RefreshedT, task: TaskInfo) -> None:
        super().__init__(options, task)
        self.assigned = PseudoLabels.none_yet(task)

    @property
    def uses_held_out(self) -> bool:
        return uses_held_out(self.options)

    @torch.no_grad()
    def refresh(self, snapshot: Snapshot) -> None:
        """Assign pseudo-labels by the scores of the averaged model (docs/method.md, section 5)."""
        logits = replace_in_blocks(self.logits, snapshot.unlabeled_cosine)
        self.assigned = PseudoLabels.assigned(self.options, self.task, snapshot, logits)

    def pseudo_labels(self) -> tuple[Tensor, Tensor] | None:
        labels, confident = self.assigned.labels, self.assigned.confident
        return (labels, confident) if len(labels) else None

    def label_records(self) -> dict[str, Tensor]:
        return super().label_records() | self.assigned.label_records()

    def sample_state(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        return {}, self.assigned.sample_state()

    def load_sample_state(self, labeled: dict[str, Tensor], unlabeled: dict[str, Tensor]) -> None:
        self.assigned = PseudoLabels.from_sample_state(unlabeled, self.task)

    def epoch_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        return {"thresholds": self.assigned.thresholds}, {}

    def load_epoch_state(self, common: dict[str, Any], unlabeled: dict[str, Tensor]) -> None:
        self.assigned = replace(self.assigned, thresholds=common["thresholds"])
