"""Methods side by side: means over seeds, and which differences are more than noise."""

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
    """A measure of one method at one label fraction.

    Args:
        mean, deviation: over seeds; the sample standard deviation is None for a single seed.
        seeds: number of them.
        best: no other method's mean is better at this label fraction.
        p_value: of the paired t-test against the best method over common seeds (two-sided); None for
            the best one and where fewer than two seeds are common.
    """

    mean: float
    deviation: float | None
    seeds: int
    best: bool
    p_value: float | None

    @property
    def within_noise(self) -> bool:
        """Whether it cannot be told from the best."""
        return not self.best and (self.p_value is None or self.p_value >= SIGNIFICANCE)


@dataclass(frozen=True)
class Line:
    """A method at a label fraction.

    Args:
        cells: by measure.
        seconds_per_epoch: refresh and training of a main-phase epoch, median over epochs.
        vdfd: mean over labels of the difference of the angle variances at the end, where there is one.
    """

    labeled_fraction: float
    entry: str
    cells: Mapping[str, Cell]
    seconds_per_epoch: float | None
    vdfd: float | None


def compared(rows: Sequence[Mapping[str, Any]]) -> list[Line]:
    """Lines by label fraction, and within one in the order in which methods come first in ``rows``.

    Args:
        rows: of ``compare.parquet``; failed runs are left out.
    """
    good = [row for row in rows if not row["error"]]
    entries = list(dict.fromkeys(row["entry"] for row in good))
    lines = []
    for fraction in sorted({row["labeled_fraction"] for row in good}):
        here = {e: _of(good, fraction, e) for e in entries if _of(good, fraction, e)}
        for entry, mine in here.items():
            cells = {measure: _cell(here, entry, measure) for measure in HEADLINE_METRICS}
            seconds, vdfd = mine[0]["seconds_per_epoch"], mine[0]["vdfd_mean"]
            lines.append(Line(fraction, entry, cells, seconds, vdfd))
    return lines


def _of(rows: Sequence[Mapping[str, Any]], fraction: float, entry: str) -> list[Mapping[str, Any]]:
    return [r for r in rows if r["labeled_fraction"] == fraction and r["entry"] == entry]


def _cell(here: Mapping[str, list[Mapping[str, Any]]], entry: str, measure: str) -> Cell:
    by_seed = {e: {r["seed"]: r[f"test_{measure}"] for r in rows} for e, rows in here.items()}
    sign = 1 if METRICS[measure].higher_is_better else -1
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

    Pairs that all differ by the same amount have no deviation: 1 if the amount is 0, else 0.
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
