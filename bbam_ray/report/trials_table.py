"""The table of all trials, sortable by each of its columns."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np
import pandas as pd

from bbam_ray.report.drawing import number_text
from bbam_ray.report.page import wide
from bbam_ray.report.report_data import ReportData

_OPTIONAL = ("answered_by", "error")


def trials_html(data: ReportData) -> str:
    """A section with a row per ended trial; the best is marked, failed ones tell their error."""
    trials, best = data.trials, data.best
    searched = [f"param_{setting.name}" for setting in data.settings]
    others = [name for name, _ in data.space.get("also", [])]
    columns = ["number", "state", data.metric, *others, "best_epoch", "epochs", "duration_s"]
    columns += [c for c in searched if c not in columns]
    columns += [c for c in _OPTIONAL if c in trials and trials[c].notna().any()]
    kinds = {c: _kind(trials[c]) for c in columns}
    head = "".join(_head(c, kinds[c], first=c == "number") for c in columns)
    body = []
    for _, row in trials.sort_values("number").iterrows():
        mark = ' class="best"' if best is not None and row.number == best.number else ""
        body.append(f"<tr{mark}>{''.join(_cell(row[c], kinds[c]) for c in columns)}</tr>")
    table = f'<table class="sortable"><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table>'
    return f"<section><h2>Trials</h2>{wide(table, 'Trials', tall=True)}</section>"


def _kind(values: pd.Series) -> str:
    """Whether a column sorts as numbers or as text."""
    number = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    return "number" if number else "text"


def _head(column: str, kind: str, *, first: bool) -> str:
    order = ' aria-sort="ascending"' if first else ""
    name = escape(column.removeprefix("param_"))
    shape = ' class="text"' if kind == "text" else ""
    return f'<th data-kind="{kind}"{shape}{order}><button type="button">{name}</button></th>'


def _cell(value: Any, kind: str) -> str:
    if value is None or value is pd.NA or value != value:
        return "<td></td>"
    if isinstance(value, (bool, np.bool_)):
        value = bool(value)
    text = number_text(value)
    key = text
    if kind == "number":
        key = "Infinity" if value == float("inf") else repr(float(value))
        return f'<td data-value="{key}">{escape(text)}</td>'
    return f'<td class="text" data-value="{escape(key)}" title="{escape(text)}">{escape(text)}</td>'
