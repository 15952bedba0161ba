"""Weights that are kept besides those of the last epoch, and the test whether a main phase does harm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from bbam_ray.core.metrics import average_precision
from bbam_ray.core.thresholds import tune_thresholds

_RESAMPLES = 100
_SAMPLES = 2000  # of a bootstrap; with more, the difference itself is precise enough


@dataclass(frozen=True)
class KeptWeights:
    """The averaged network and the scoring state of the method at the end of an epoch.

    Args:
        epoch: from 1.
        value: val_map of that epoch.
        logits: (N_v, K) scores of the validation samples.
        average: state of the averaged network.
        scoring: scoring state of the method.
    """

    epoch: int
    value: float
    logits: Tensor
    average: dict[str, Tensor]
    scoring: dict[str, Tensor]

    @classmethod
    def of(
        cls,
        epoch: int,
        value: float,
        logits: Tensor,
        average: dict[str, Tensor],
        scoring: dict[str, Tensor],
    ) -> Self:
        """Copy the tensors, which training changes."""
        return cls(epoch, value, logits.clone(), _copied(average), _copied(scoring))

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "epoch": self.epoch,
            "value": self.value,
            "logits": self.logits,
            "average": self.average,
            "scoring": self.scoring,
        }

    @classmethod
    def from_state_dict(cls, state: dict[str, Any], device: torch.device) -> Self:
        """Restore ``state_dict``."""
        return cls(
            state["epoch"],
            state["value"],
            state["logits"].to(device),
            {name: tensor.to(device) for name, tensor in state["average"].items()},
            {name: tensor.to(device) for name, tensor in state["scoring"].items()},
        )


def _copied(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def is_harmful(before: Tensor, now: Tensor, labels: Tensor) -> bool:
    """Whether scores have become worse beyond the noise of the validation samples.

    The mean average precision must have fallen by more than two standard errors of its difference, from
    a paired bootstrap over the samples. The resamples are the same in every call, so the decision is
    reproducible.

    Args:
        before, now: (N, K) scores of the same samples.
        labels: (N, K) 0/1.
    """
    fall = _mean_average_precision(before, labels) - _mean_average_precision(now, labels)
    return fall > 0 and fall > 2 * difference_error(before, now, labels)


def difference_error(first: Tensor, second: Tensor, labels: Tensor) -> float:
    """Standard error of the difference of two mean average precisions, by a paired bootstrap.

    Args:
        first, second: (N, K) scores of the same samples.
        labels: (N, K) 0/1.
    """
    return _bootstrap_error(
        lambda rows: (
            _mean_average_precision(first[rows], labels[rows])
            - _mean_average_precision(second[rows], labels[rows])
        ),
        labels,
    )


def map_standard_error(scores: Tensor, labels: Tensor) -> float:
    """Standard error of the mean average precision over the samples, by a bootstrap.

    Args:
        scores: (N, K).
        labels: (N, K) 0/1.
    """
    return _bootstrap_error(
        lambda rows: _mean_average_precision(scores[rows], labels[rows]), labels
    )


def _bootstrap_error(statistic: Callable[[Tensor], float], labels: Tensor) -> float:
    """Standard deviation of a statistic over resampled rows, the same ones in every call.

    Resamples without any positive label have no value and are left out; NaN if fewer than two have one.
    """
    generator = torch.Generator().manual_seed(0)
    size = min(len(labels), _SAMPLES)
    draws = [torch.randint(len(labels), (size,), generator=generator) for _ in range(_RESAMPLES)]
    values = torch.tensor([statistic(rows.to(labels.device)) for rows in draws]).double()
    values = values[values.isfinite()]
    return float(values.std() * (size / len(labels)) ** 0.5) if len(values) > 1 else float("nan")


def share_of_changed_decisions(before: Tensor, now: Tensor, labels: Tensor) -> float:
    """Share of the entries that two models decide differently, each with its own tuned thresholds.

    Args:
        before, now: (N, K) scores of the same samples.
        labels: (N, K) 0/1.
    """
    decisions = [
        scores >= tune_thresholds(scores, labels).to(scores.device) for scores in (before, now)
    ]
    return float((decisions[0] != decisions[1]).double().mean())


def _mean_average_precision(scores: Tensor, labels: Tensor) -> float:
    return float(average_precision(scores, labels).nanmean())
