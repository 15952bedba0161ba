"""Compare methods: means over seeds, and which differences are statistically significant."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from bbam_ray.core.metric_names import HEADLINE_METRICS, METRICS

SIGNIFICANCE = 0.05


@dataclass(frozen=True)
class Cell:
    """A metric of one method at one label fraction.

    Args:
        mean, deviation: over seeds; the sample standard deviation is None for a single seed.
        seeds: number of seeds.
        best: whether no other method has a better mean at this label fraction.
        p_value: of the two-sided paired t-test against the best method, over their common seeds; None
            for the best method, and with fewer than two common seeds.
    """

    mean: float
    deviation: float | None
    seeds: int
    best: bool
    p_value: float | None

    @property
    def within_noise(self) -> bool:
        """Whether the difference to the best method is not significant."""
        return not self.best and (self.p_value is None or self.p_value >= SIGNIFICANCE)


@dataclass(frozen=True)
class Line:
    """A row of the comparison: a method at a label fraction.

    Args:
        cells: by metric.
        seconds_per_epoch: refresh and training of a main-phase epoch, median over epochs.
        vdfd: difference of the angle variances at the end, mean over labels; None if not recorded.
    """

    labeled_fraction: float
    entry: str
    cells: Mapping[str, Cell]
    seconds_per_epoch: float | None
    vdfd: float | None


def compared(rows: Sequence[Mapping[str, Any]]) -> list[Line]:
    """Compare the rows of ``compare.parquet``.

    Args:
        rows: of ``compare.parquet``; failed runs are ignored.

    Returns:
        Lines sorted by label fraction, then in the order in which the methods first appear in ``rows``.
    """
    good = [row for row in rows if not row["error"]]
    entries = list(dict.fromkeys(row["entry"] for row in good))
    lines = []
    for fraction in sorted({row["labeled_fraction"] for row in good}):
        by_entry = {e: _rows_of(good, fraction, e) for e in entries if _rows_of(good, fraction, e)}
        for entry, runs in by_entry.items():
            cells = {metric: _cell(by_entry, entry, metric) for metric in HEADLINE_METRICS}
            seconds, vdfd = runs[0]["seconds_per_epoch"], runs[0]["vdfd_mean"]
            lines.append(Line(fraction, entry, cells, seconds, vdfd))
    return lines


def _rows_of(
    rows: Sequence[Mapping[str, Any]], fraction: float, entry: str
) -> list[Mapping[str, Any]]:
    return [r for r in rows if r["labeled_fraction"] == fraction and r["entry"] == entry]


def _cell(by_entry: Mapping[str, list[Mapping[str, Any]]], entry: str, metric: str) -> Cell:
    by_seed = {e: {r["seed"]: r[f"test_{metric}"] for r in rows} for e, rows in by_entry.items()}
    sign = 1 if METRICS[metric].higher_is_better else -1
    means = {e: fmean(values.values()) for e, values in by_seed.items()}
    leader = max(means, key=lambda e: sign * means[e])
    values = list(by_seed[entry].values())
    common = sorted(by_seed[entry].keys() & by_seed[leader].keys())
    pairs = [(by_seed[leader][seed], by_seed[entry][seed]) for seed in common]
    return Cell(
        mean=means[entry],
        deviation=stdev(values) if len(values) > 1 else None,
        seeds=len(values),
        best=means[entry] == means[leader],
        p_value=None if entry == leader else paired_p_value(pairs),
    )


def paired_p_value(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Two-sided p-value of Student's paired t-test; None for fewer than two pairs.

    If all differences are equal, their deviation is 0: then the value is 1 for differences of 0, else 0.
    """
    from scipy.special import stdtr  # takes most of a second to load

    if len(pairs) < 2:
        return None
    differences = [a - b for a, b in pairs]
    deviation = stdev(differences)
    if deviation == 0:
        return 1.0 if differences[0] == 0 else 0.0
    t = fmean(differences) / (deviation / math.sqrt(len(pairs)))
    return float(2 * stdtr(len(pairs) - 1, -abs(t)))
