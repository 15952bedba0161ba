"""Statistics by label that are updated in every step, over the global batch."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from bbam_ray import distributed
from bbam_ray.methods.scaled_cosine import ScaledCosineOptions


class StepStatisticsOptions(ScaledCosineOptions):
    """Options of a method with statistics that are updated in every step."""

    step_momentum: float = Field(
        0.999, ge=0, lt=1, description="Weight g of the old statistics in a step."
    )


def batch_means(total: int, *values: Tensor) -> list[Tensor]:
    """Means over the samples of a step on all ranks, reduced in one message.

    Args:
        total: samples of the step over all ranks.
        values: (B, K) each, of this rank's share, which may be empty.

    Returns:
        (K,) float64 each: sums / total, which do not depend on how the samples are divided over ranks.
    """
    sums = distributed.all_reduce_sum(*(value.double().sum(0) for value in values))
    return [summed / total for summed in sums]


class StepAverage:
    """Exponential average over steps, equal on every rank.

    a <- g_t a + (1 - g_t) now at update t = 0, 1, ..., with the warm-up of the averaged weights:
    g_0 = 0, so that the first update takes the values as they are, and then
    g_t = min(g, (1 + t) / (10 + t)).

    Args:
        shape: of the values.
        momentum: g in [0, 1).
        device: of the average.
    """

    def __init__(self, shape: tuple[int, ...], momentum: float, device: torch.device) -> None:
        self.value = torch.zeros(shape, dtype=torch.float64, device=device)
        self.momentum, self.updates = momentum, 0

    def update(self, now: Tensor) -> Tensor:
        """Update with the values of a step, which must be equal on all ranks; returns the new average."""
        old = min(self.momentum, (1 + self.updates) / (10 + self.updates)) if self.updates else 0.0
        self.value = old * self.value + (1 - old) * now
        self.updates += 1
        return self.value

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value, "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value, self.updates = state["value"].to(self.value.device), int(state["updates"])
