"""The supervised baselines: labelled samples only, on the same backbone and cosine head."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from bbam_ray.core.losses import asymmetric_loss, bbam_logits, bbam_loss, binary_loss
from bbam_ray.core.statistics import AngleStatistics
from bbam_ray.methods.method import Method, Minibatch, StepLoss, TaskInfo, masked_batch_mean
from bbam_ray.methods.shared_options import AsymmetricLossOptions, ScaleOptions


class SupervisedOptions(ScaleOptions, AsymmetricLossOptions):
    """Options of the method ``supervised``."""

    loss: Literal["bce", "asl", "angular"] = Field(
        "angular",
        description="Loss function: `bce`, `asl` (asymmetric loss) or `angular` (margin on the cosine).",
    )
    margin: float = Field(
        0.4, ge=0, le=2, description="Margin m of the angular loss; the other losses ignore it."
    )


class Supervised(Method[SupervisedOptions]):
    """Supervised training with one of three losses.

    z = s cos for bce and asl; z = s (cos - y m) for the angular loss, which is ``bbam_loss`` with the
    identity as balance map. Scoring uses y = 1/2. Source: docs/method.md, section 11.
    """

    name: ClassVar[str] = "supervised"
    Options = SupervisedOptions
    semi_supervised: ClassVar[bool] = False
    unused: ClassVar[tuple[str, ...]] = ("cycle_epochs", "ema_restart")

    def __init__(self, options: SupervisedOptions, task: TaskInfo) -> None:
        super().__init__(options, task)
        self._identity = AngleStatistics.empty(task.num_labels, task.labels.device)

    def labeled_loss(self, model: nn.Module, labeled: Minibatch, labels: Tensor) -> StepLoss:
        _, cosine = model(labeled.view("strong"))
        o = self.options
        if o.loss == "angular":
            loss = bbam_loss(cosine, labels, self._identity, o.scale, o.margin)
        elif o.loss == "asl":
            loss = asymmetric_loss(
                o.scale * cosine, labels, gamma_negative=o.gamma_negative, clip=o.clip
            )
        else:
            loss = binary_loss(o.scale * cosine, labels)
        return StepLoss(masked_batch_mean(loss, None, labeled.total))

    def logits(self, cosine: Tensor) -> Tensor:
        margin = self.options.margin if self.options.loss == "angular" else 0.0
        return bbam_logits(cosine, 0.5, self._identity, self.options.scale, margin)

    def label_records(self) -> dict[str, Tensor]:
        return {"prior": self.task.positive_frequency}
