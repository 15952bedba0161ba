"""Figures per label that follow the training from step to step, taken over the global batch."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from bbam_ray import distributed
from bbam_ray.methods.scaled_cosine import ScaledCosineOptions


class StepStatisticsOptions(ScaledCosineOptions):
    """Options of a method that follows such figures."""

    step_momentum: float = Field(
        0.999, ge=0, lt=1, description="Weight g of the old statistics in a step."
    )


def batch_means(total: int, *values: Tensor) -> list[Tensor]:
    """Means over the samples of a step, of all ranks together, in one message.

    Args:
        total: samples of the step over all ranks.
        values: (B, K) each, of this rank's share, which may be empty.

    Returns:
        (K,) float64 each: sums / total, so that the division of the samples does not matter.
    """
    sums = distributed.all_reduce_sum(*(value.double().sum(0) for value in values))
    return [summed / total for summed in sums]


class StepAverage:
    """Exponential average over steps: a <- g a + (1 - g) now, the same on every rank.

    Args:
        shape: of the figures.
        momentum: g in [0, 1); reached through a warm-up min(g, (1 + t) / (10 + t)) over the updates t, as
            that of the averaged weights. The first update takes the figures as they are.
        device: where they are kept.
    """

    def __init__(self, shape: tuple[int, ...], momentum: float, device: torch.device) -> None:
        self.value = torch.zeros(shape, dtype=torch.float64, device=device)
        self.momentum, self.updates = momentum, 0

    def update(self, now: Tensor) -> Tensor:
        """Take the figures of a step in; returns the average."""
        old = min(self.momentum, (1 + self.updates) / (10 + self.updates)) if self.updates else 0.0
        self.value = old * self.value + (1 - old) * now
        self.updates += 1
        return self.value

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value, "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value, self.updates = state["value"].to(self.value.device), int(state["updates"])
