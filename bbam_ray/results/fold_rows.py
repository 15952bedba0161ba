"""Rows by fold and epoch: their means over folds, and which epoch's weights a trial keeps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from bbam_ray.results.store import Row

#: Which weights are kept: of the end of the warm-up, of the epoch with the highest val_map, of the last.
WARMUP, BEST, LAST = "warmup", "best", "last"

RowsByFold = dict[int, list[Row]]


def rows_by_fold(history: Iterable[Row]) -> RowsByFold:
    """Rows in the order of epochs by fold; rows without a fold belong to fold 0."""
    by_fold: RowsByFold = {}
    for row in sorted(history, key=lambda row: row["epoch"]):
        by_fold.setdefault(row.get("fold") or 0, []).append(row)
    return dict(sorted(by_fold.items()))


def kept_phase(by_fold: RowsByFold, keep: str) -> str:
    """Which weights a trial keeps, decided for all folds together by val_map.

    The weights of the last epoch, unless the end of the warm-up has a higher mean over the folds.

    Args:
        by_fold: rows of each fold.
        keep: the setting ``keep`` of the trial.
    """
    if keep != "phase":
        return keep
    pairs = [(_end_of_warmup(rows), rows[-1]) for rows in by_fold.values()]
    gains = [
        last["val_map"] - warmup["val_map"]
        for warmup, last in pairs
        if warmup is not None and None not in (last.get("val_map"), warmup.get("val_map"))
    ]
    return WARMUP if gains and fmean(gains) < 0 else LAST


def _end_of_warmup(rows: list[Row]) -> Row | None:
    """The last row of the warm-up, if a main phase followed."""
    if rows[-1].get("phase") != "main":
        return None
    return next((row for row in reversed(rows) if row.get("phase") == "warmup"), None)


def stored_phase(trial: Mapping[str, Any]) -> str:
    """Which weights a stored trial kept; "last" for a trial without results."""
    reason = trial.get("kept") or LAST
    return next((phase for phase in (WARMUP, BEST, LAST) if reason.startswith(phase)), LAST)


def kept_rows(by_fold: RowsByFold, phase: str) -> list[Row]:
    """The row of the kept weights of each fold."""
    if phase == BEST:
        return [max(rows, key=lambda row: row.get("val_map") or 0.0) for rows in by_fold.values()]
    if phase == WARMUP:
        return [_end_of_warmup(rows) or rows[-1] for rows in by_fold.values()]
    return [rows[-1] for rows in by_fold.values()]


def kept_reason(by_fold: RowsByFold, phase: str) -> str:
    """The kept weights in words, beginning with ``phase``; with the reason if they are of the warm-up."""
    if phase != WARMUP:
        return phase
    ends = [(_end_of_warmup(rows), rows[-1]) for rows in by_fold.values()]
    before = fmean(warmup["val_map"] for warmup, _ in ends if warmup)
    after = fmean(last["val_map"] for warmup, last in ends if warmup)
    text = f"{phase}: the main phase lowered val_map from {before:.3f} to {after:.3f}"
    known = [row["pseudo_precision"] for _, row in ends if row.get("pseudo_precision") is not None]
    if known:
        text += f"; precision of its pseudo-labels {fmean(known):.2f}"
    flipped = [row["flipped"] for _, row in ends if row.get("flipped") is not None]
    if flipped:
        text += f"; it changed {fmean(flipped):.1%} of the decisions on validation samples"
    return text


def mean_metrics(rows: Sequence[Row]) -> dict[str, float | None]:
    """Means of the columns ``val_*`` over rows."""
    names = [name for name in rows[0] if name.startswith("val_")] if rows else []
    return {name: _mean([row.get(name) for row in rows]) for name in names}


def mean_scalars(scalars: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The row of an epoch over folds: means of numbers, texts and epoch of the first fold."""
    if len(scalars) == 1:
        return dict(scalars[0])
    first = scalars[0]
    return {
        name: first[name]
        if name == "epoch" or isinstance(first[name], str)
        else _mean([each.get(name) for each in scalars])
        for name in first
    }


def mean_labels(labels: Sequence[Mapping[str, Sequence[Any]]]) -> dict[str, list[Any]]:
    """Columns of the label table over folds: means by label, also of histograms."""
    if len(labels) == 1:
        return {name: list(values) for name, values in labels[0].items()}
    return {
        name: [_mean_cell(cells) for cells in zip(*(each[name] for each in labels), strict=True)]
        for name in labels[0]
    }


def _mean_cell(cells: Sequence[Any]) -> Any:
    if isinstance(cells[0], list):
        return [fmean(counts) for counts in zip(*cells, strict=True)]
    return _mean(cells)


def _mean(values: Sequence[Any]) -> float | None:
    """Mean of the values that are known; None if none is."""
    known = [value for value in values if value is not None and not math.isnan(value)]
    return fmean(known) if known else None
