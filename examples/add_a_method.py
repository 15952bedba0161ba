"""A method of your own in one file: a fixed confidence threshold, as in FixMatch, for each label.

python examples/add_a_method.py

To search its settings too, move the class to ``bbam_ray/methods/``, add a line to ``METHODS`` there
(``__init__.py``), and write ``search_spaces/fixed_threshold.yaml``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from bbam_ray import train
from bbam_ray.core.losses import binary_loss
from bbam_ray.methods import METHODS
from bbam_ray.methods.method import Minibatch, StepLoss, masked_batch_mean
from bbam_ray.methods.scaled_cosine import ScaledCosineOptions, StepLabelsMethod, forward_together


class FixedThresholdOptions(ScaledCosineOptions):
    """Settings of the method, in addition to the inherited ``scale`` and ``unlabeled_weight``."""

    threshold: float = Field(0.9, gt=0.5, lt=1, description="lowest confidence of a used entry")


class FixedThreshold(StepLabelsMethod):
    """The strong view learns the labels of the weak view wherever p or 1 - p reaches the threshold."""

    name: ClassVar[str] = "fixed_threshold"
    Options = FixedThresholdOptions

    def semi_supervised_loss(
        self, model: nn.Module, labeled: Minibatch, labels: Tensor, unlabeled: Minibatch
    ) -> StepLoss:
        views = (labeled, "strong"), (unlabeled, "weak"), (unlabeled, "strong")
        _, (known, weak, strong) = forward_together(model, *views)
        p = self.logits(weak).detach().sigmoid()
        pseudo, confident = (p > 0.5).to(torch.int8), p.maximum(1 - p) >= self.options.threshold
        self.record(unlabeled, pseudo, confident)  # for the report only
        losses = binary_loss(self.logits(known), labels), binary_loss(self.logits(strong), pseudo)
        on_unlabeled = masked_batch_mean(losses[1], confident, unlabeled.total)
        on_labeled = masked_batch_mean(losses[0], None, labeled.total)
        return StepLoss(on_labeled, self.unlabeled_weight * on_unlabeled)


def main(results: Path = Path("results"), epochs: int = 12) -> None:
    METHODS.add(FixedThreshold.name, FixedThreshold)
    settings = {"threshold": 0.8}
    print(train(method="fixed_threshold", settings=settings, epochs=epochs, results=results))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
