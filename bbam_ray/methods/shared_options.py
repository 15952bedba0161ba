"""Options that several methods share."""

from __future__ import annotations

from typing import Literal, Protocol, Self

from pydantic import Field, model_validator
from torch import Tensor

from bbam_ray.config import MethodOptions
from bbam_ray.core.graph import neighbor_graph, propagate_labels, standardized
from bbam_ray.methods.method import Snapshot, TaskInfo


class ScaledOptions(Protocol):
    """Options with a scale and a weight of the unlabelled samples."""

    @property
    def scale(self) -> float: ...

    @property
    def unlabeled_weight(self) -> float | None: ...


class ScaleOptions(MethodOptions):
    """Options of every method: logits are scaled cosines."""

    scale: float = Field(20.0, gt=0, le=100, description="Scale s of the logits.")


class UnlabeledWeightOptions(MethodOptions):
    """Options of every method that learns from unlabelled samples."""

    unlabeled_weight: float | None = Field(
        1.0,
        ge=0,
        description="Weight lambda_u of the unlabelled samples in the loss; null uses unlabeled_batch / "
        "labeled_batch.",
    )


class PseudoLabelOptions(MethodOptions):
    """Options of methods with class-distribution-aware pseudo-labels (docs/method.md, section 5).

    Their published implementations sum the losses of all entries, which is a weight of B_u / B_l.
    """

    unlabeled_weight: float | None = Field(
        None,
        ge=0,
        description="Weight lambda_u of the unlabelled samples in the loss; null uses unlabeled_batch / "
        "labeled_batch, as published.",
    )
    positive_keep: float = Field(
        1.0, ge=0, le=1, description="Share of the pseudo-positives that are confident."
    )
    negative_keep: float = Field(
        0.998, ge=0, le=1, description="Share of the pseudo-negatives that are confident."
    )
    pseudo_labels: Literal["frequency", "metric", "midrange"] = Field(
        "frequency",
        description="How many pseudo-positives a label gets: as many as its `frequency` among the "
        "labelled samples, or as many as exceed a threshold from validation samples: that of the best "
        "F-beta (`metric`), or the mid-ranges of the scores of true positives and true negatives, with "
        "nothing in between (`midrange`); without held-out scores it is `frequency`.",
    )
    threshold_beta: float = Field(
        0.5,
        gt=0,
        le=10,
        description="Beta of F-beta for pseudo_labels `metric`; below 1, precision counts more than "
        "recall.",
    )
    threshold_positives: int = Field(
        5,
        ge=1,
        description="Positives among the validation samples that a label needs for a threshold of its own "
        "(for `midrange` also negatives); with fewer its frequency is used.",
    )
    pseudo_label_weight: Literal["none", "confidence", "measured"] = Field(
        "none",
        description="Weight of a pseudo-label in the loss: 1 (`none`), its probability by the network "
        "(`confidence`), or the share of validation labels that were right at that probability "
        "(`measured`); without held-out scores `measured` is `none`.",
    )
    graph_neighbors: int = Field(
        0,
        ge=0,
        le=1000,
        description="Nearest neighbours of each sample in the graph over which known labels are "
        "propagated, to improve pseudo-labels; 0 uses the scores of the network alone.",
    )
    graph_alpha: float = Field(
        0.9,
        ge=0,
        lt=1,
        description="How far labels are propagated over the graph, from 0 (not at all) to 1; unused if "
        "graph_neighbors is 0.",
    )
    graph_weight: float = Field(
        1.0,
        ge=0,
        le=100,
        description="Weight of the propagated labels relative to the network's scores; unused if "
        "graph_neighbors is 0.",
    )

    @model_validator(mode="after")
    def _something_is_confident(self) -> Self:
        if self.positive_keep == 0 and self.negative_keep == 0:
            raise ValueError(
                "positive_keep = 0 and negative_keep = 0 leave nothing to learn from; raise one"
            )
        return self


class AsymmetricLossOptions(MethodOptions):
    """Options of ``core.losses.asymmetric_loss``."""

    gamma_negative: float = Field(
        4.0, ge=0, le=10, description="Focusing exponent of the negatives in the asymmetric loss."
    )
    clip: float = Field(
        0.05, ge=0, lt=1, description="Probability shift of the negatives in the asymmetric loss."
    )


def pseudo_label_scores(
    options: PseudoLabelOptions, labels: Tensor, snapshot: Snapshot, logits: Tensor
) -> Tensor:
    """Scores for pseudo-labels: the logits, or their sum with labels propagated over a graph.

    With graph_neighbors > 0: standardised logits + graph_weight x standardised ``propagate_labels`` over
    the graph of the snapshot's features, labelled and unlabelled samples of all ranks. Messages and time:
    ``core.graph``.

    Args:
        options: graph_neighbors, graph_alpha and graph_weight.
        labels: (N_l, K) 0/1, of this rank's labelled samples.
        snapshot: of this rank's samples.
        logits: (N_u, K).

    Returns:
        (N_u, K) float32, increasing with the probability of the label.
    """
    if options.graph_neighbors == 0:
        return logits
    graph = neighbor_graph(snapshot.features, options.graph_neighbors, snapshot.index)
    propagated = standardized(propagate_labels(graph, labels, options.graph_alpha))
    return (standardized(logits) + options.graph_weight * propagated).float()


def unlabeled_weight(options: ScaledOptions, task: TaskInfo) -> float:
    """lambda_u: the option, or B_u / B_l if it is null.

    B_u / B_l weighs all samples of both batches equally, as a plain sum over all entries does.
    """
    if options.unlabeled_weight is not None:
        return options.unlabeled_weight
    return task.unlabeled_batch / task.labeled_batch
