"""Measured speed of earlier studies, to estimate how long a new one takes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bbam_ray.errors import UsageError
from bbam_ray.results.store import read_table


@dataclass(frozen=True)
class Throughput:
    """Measured speed of an earlier study.

    Args:
        study: its name.
        seconds_per_epoch: median over its trials.
        overhead: seconds of a trial in addition to its epochs, median.
    """

    study: str
    seconds_per_epoch: float
    overhead: float


def measured_throughput(parent: Path, method: str, settings: dict[str, Any]) -> Throughput | None:
    """Find the newest study with the same method and cost settings, and measure it; None without one.

    Args:
        parent: folder of the studies on a data set.
        method: of the trials.
        settings: those that decide how long an epoch takes, as under ``pace`` in ``study.json``.
    """
    if not parent.is_dir():
        return None
    records = sorted(parent.glob("*/study.json"), key=lambda path: -path.stat().st_mtime)
    for path in records:
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            trials = read_table(path.parent / "trials.parquet").to_pylist()
        except (OSError, ValueError, UsageError):
            continue
        if record.get("method") != method or record.get("pace") != settings:
            continue
        rows = [
            row for row in trials if row.get("seconds_per_epoch") and not row.get("answered_by")
        ]
        if rows:
            rest = [
                max(0.0, row["duration_s"] - row["epochs"] * row["seconds_per_epoch"])
                for row in rows
            ]
            each = median(row["seconds_per_epoch"] for row in rows)
            return Throughput(path.parent.name, each, median(rest))
    return None
