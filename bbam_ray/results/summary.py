"""Statistics over the seeds of confirmed configurations, and durations as text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, stdev
from typing import Any


@dataclass(frozen=True)
class Confirmed:
    """A test metric of one confirmed configuration over seeds.

    Args:
        rank: of the configuration, 1 for the best.
        number: of its trial.
        seeds: number of seeds.
        mean: over seeds.
        deviation: sample standard deviation; None for a single seed.
    """

    rank: int
    number: int
    seeds: int
    mean: float
    deviation: float | None

    @property
    def standard_error(self) -> float | None:
        return None if self.deviation is None else self.deviation / sqrt(self.seeds)

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % confidence interval of the mean over seeds (Student's t)."""
        from scipy.special import stdtrit  # takes most of a second to load

        error = self.standard_error
        if error is None:
            return None
        half = float(stdtrit(self.seeds - 1, 0.975)) * error
        return self.mean - half, self.mean + half


def confirmed_metrics(
    rows: Iterable[Mapping[str, Any]], metric: str = "test_map"
) -> list[Confirmed]:
    """Mean and deviation over seeds for each configuration, ordered by rank.

    Args:
        rows: of ``confirm.parquet``. Failed runs and configurations without a rank are ignored.
        metric: column.
    """
    groups: dict[tuple[int, int], list[float]] = {}
    for row in rows:
        value = row[metric]
        ranked = row["rank"] is not None and row["rank"] == row["rank"]
        if ranked and value is not None and value == value:
            groups.setdefault((int(row["rank"]), row["number"]), []).append(value)
    return [
        Confirmed(rank, number, len(v), fmean(v), stdev(v) if len(v) > 1 else None)
        for (rank, number), v in sorted(groups.items())
    ]


def duration(seconds: float) -> str:
    """A duration as text: "2h05m", "5m07s" or "9s"."""
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"
