"""The table of metrics: name, label, direction and value.

A new metric is one entry here: validation and test columns, objectives of a search, the report and the
documentation follow from the table. The module does not import torch, so that reports can use it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bbam_ray.core.metrics import Scoring


@dataclass(frozen=True)
class Metric:
    """One metric of a scoring.

    Args:
        label: the name in tables and figures.
        higher_is_better: the direction.
        value: computes it from a ``Scoring``, as a fraction.
        headline: shown where there is room for a few metrics only.
    """

    label: str
    higher_is_better: bool
    value: Callable[[Scoring], float]
    headline: bool = False


METRICS: dict[str, Metric] = {
    "map": Metric("mAP", True, lambda s: float(s.precision.nanmean()), headline=True),
    "map_absent_zero": Metric(
        "mAP (absent labels count 0)", True, lambda s: float(s.precision.nan_to_num(0.0).mean())
    ),
    "micro_f1": Metric("micro-F1", True, lambda s: s.decisions.micro_f1, headline=True),
    "macro_f1": Metric("macro-F1", True, lambda s: s.decisions.macro_f1, headline=True),
    "hamming_loss": Metric(
        "Hamming loss", False, lambda s: s.decisions.hamming_loss, headline=True
    ),
    "micro_f1_oracle_k": Metric("micro-F1 (oracle k)", True, lambda s: s.oracle.micro_f1),
    "macro_f1_oracle_k": Metric("macro-F1 (oracle k)", True, lambda s: s.oracle.macro_f1),
    "hamming_loss_oracle_k": Metric(
        "Hamming loss (oracle k)", False, lambda s: s.oracle.hamming_loss
    ),
    "one_error": Metric("one-error", False, lambda s: s.ranking.one_error, headline=True),
    "ranking_loss": Metric("ranking loss", False, lambda s: s.ranking.ranking_loss),
    "coverage": Metric("coverage", False, lambda s: s.ranking.coverage),
}
METRIC_NAMES = tuple(METRICS)
HEADLINE_METRICS = {name: metric for name, metric in METRICS.items() if metric.headline}
