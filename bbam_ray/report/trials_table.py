"""The table of all trials, sortable by each of its columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bbam_ray.report.report_data import ReportData
from bbam_ray.report.tables import number_text

_ERROR = ("standard_error",)  # of the first objective; older studies have none
_OPTIONAL = ("folds", "kept", "answered_by", "error")


@dataclass(frozen=True)
class Cell:
    """A value as the reader and as the sorting sees it.

    Args:
        sort_key: None for a missing value, which stays last.
    """

    text: str = ""
    sort_key: str | None = None


@dataclass(frozen=True)
class TrialsTable:
    """What ``_trials.html.j2`` shows.

    Args:
        columns: name, and whether it sorts as "number" or "text".
        rows: a cell per column, and whether this is the best trial.
    """

    columns: Sequence[tuple[str, str]]
    rows: Sequence[tuple[Sequence[Cell], bool]]

    @property
    def has_best(self) -> bool:
        """Whether a trial is marked as the best."""
        return any(is_best for _, is_best in self.rows)


def trials_table(data: ReportData) -> TrialsTable:
    """A row per ended trial, by number."""
    trials, best = data.trials, data.best
    searched = [f"param_{setting.name}" for setting in data.settings]
    objectives = [data.metric, *(name for name, _ in data.space.get("also", []))]
    names = ["number", "state", *objectives, *_ERROR, "best_epoch", "epochs", "duration_s"]
    names = [name for name in names if name not in _ERROR or name in trials]
    names += [name for name in searched if name not in names]
    names += [name for name in _OPTIONAL if name in trials and trials[name].notna().any()]
    kinds = {name: _kind(trials[name]) for name in names}
    rows = [
        (
            [_cell(trial[name], kinds[name]) for name in names],
            best is not None and trial.number == best.number,
        )
        for _, trial in trials.sort_values("number").iterrows()
    ]
    columns = [(name.removeprefix("param_"), kind) for name, kind in kinds.items()]
    return TrialsTable(columns, rows)


def _kind(values: pd.Series) -> str:
    numeric = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    return "number" if numeric else "text"


def _cell(value: Any, kind: str) -> Cell:
    if value is None or value is pd.NA or value != value:
        return Cell()
    if isinstance(value, (bool, np.bool_)):
        value = bool(value)
    text = number_text(value)
    if kind == "text":
        return Cell(text, text)
    if value == float("inf"):
        return Cell(text, "Infinity")  # JavaScript's Number() does not read "inf"
    # A text without rounding sorts as it is, so that the page has the value once.
    return Cell(text, text if float(text) == value else repr(float(value)))
