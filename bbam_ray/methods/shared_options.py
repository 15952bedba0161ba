"""Options that several methods share."""

from __future__ import annotations

from typing import Protocol, Self

from pydantic import Field, model_validator

from bbam_ray.config import MethodOptions
from bbam_ray.methods.method import TaskInfo


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


def unlabeled_weight(options: ScaledOptions, task: TaskInfo) -> float:
    """lambda_u: the option, or B_u / B_l if it is null.

    B_u / B_l weighs all samples of both batches equally, as a plain sum over all entries does.
    """
    if options.unlabeled_weight is not None:
        return options.unlabeled_weight
    return task.unlabeled_batch / task.labeled_batch
