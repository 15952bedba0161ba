"""The answer, which comes first in a report: the best configuration and what it reaches."""

from __future__ import annotations

from html import escape
from typing import Any

import pandas as pd

from bbam_ray.core.metric_names import HEADLINE_METRICS
from bbam_ray.report.drawing import number_text, table_html
from bbam_ray.report.report_data import ReportData
from bbam_ray.results.schemas import COMPLETE, FAILED, PRUNED
from bbam_ray.results.study import StudyStatus
from bbam_ray.results.summary import Confirmed, confirmed_metrics

_STATES = {COMPLETE: "complete", PRUNED: "stopped early", FAILED: "failed"}
_NOTE = (
    '<p class="note">Test figures: mean over seeds [95 % interval of the mean]. Configurations are '
    "chosen on validation data only.</p>"
)


def interval_text(figure: Confirmed) -> str:
    """ "0.8524 [0.8158, 0.8890]": the mean over seeds and its 95 % interval."""
    if figure.interval is None:
        return f"{figure.mean:.4f}"
    low, high = figure.interval
    return f"{figure.mean:.4f} [{low:.4f}, {high:.4f}]"


def answer_html(data: ReportData) -> str:
    """Sentences, the table of confirmed figures and the table of settings, as HTML."""
    said = f'<p class="answer">{"<br>".join(_found(data))}</p>{_status(data)}'
    tables = f'<div class="tables">{_figures(data)}{_settings(data)}</div>'
    return said + tables + (_NOTE if data.confirm else "")


def _status(data: ReportData) -> str:
    """How far the study is; stressed while there may be more to come."""
    record, states = data.record, data.trials.state.value_counts()
    asked = record.get("num_samples")
    if data.is_run:
        return f'<p class="note">Status: {escape(str(record["status"]))}.</p>'
    ended = f"{len(data.trials)}{f' of {asked}' if asked else ''} trials have ended"
    counts = [f"{states.get(s, 0)} {text}" for s, text in _STATES.items() if states.get(s, 0)]
    shown = "note" if record["status"] == StudyStatus.COMPLETE else "warn"
    told = f"Status: {escape(str(record['status']))}. {ended}: {', '.join(counts)}."
    return f'<p class="{shown}">{told}</p>'


def _found(data: ReportData) -> list[str]:
    best, metric = data.best, escape(data.metric)
    if best is None:
        return ["No trial was completed."]
    value = f"{metric} <b>{best[data.metric]:.4f}</b> on validation data"
    epoch = f" (epoch {best.best_epoch:g})" if pd.notna(best.best_epoch) else ""
    if data.is_run:
        lines = [f"One run: {value}{epoch}."]
    else:
        count = len(data.complete)
        lines = [
            f"Best of {count} complete trial{'s' * (count != 1)}: "
            f"<b>trial {best.number}</b>, {value}{epoch}."
        ]
    first = data.published
    if first is not None and first.number == best.number:
        lines.append("These are the published settings (trial 0).")
    elif first is not None and first.state == COMPLETE and pd.notna(first[data.metric]):
        lines.append(f"Published settings (trial 0): {first[data.metric]:.4f}.")
    for row in confirmed_metrics(data.confirm):
        spread = f" &plusmn; {row.deviation:.4f}" if row.deviation is not None else ""
        if row.interval is not None:
            spread += f" (95 % interval {row.interval[0]:.4f} to {row.interval[1]:.4f})"
        which = "" if row.number == best.number else f", trial {row.number}"
        seeds = f"{row.seeds} seed{'s' * (row.seeds != 1)}"
        lines.append(
            f"Confirmed on the test part (rank {row.rank}{which}, {seeds}): mAP "
            f"<b>{row.mean:.4f}</b>{spread}."
        )
    return lines


def _figures(data: ReportData) -> str:
    """A row per confirmed configuration, with the published one even where it was not confirmed."""
    by_measure = {
        m: {f.number: f for f in confirmed_metrics(data.confirm, f"test_{m}")}
        for m in HEADLINE_METRICS
    }
    numbers = list(by_measure["map"])
    if not numbers or data.best is None:
        return ""
    if data.published is not None and 0 not in numbers:
        numbers.append(0)
    values = data.trials.set_index("number")[data.metric]
    heads, known = [""], by_measure["map"]
    for number in numbers:
        name = "this run" if data.is_run else f"trial {number}"
        heads.append(name + " (published)" * (number == 0 and not data.is_run))
    rows = [[data.metric, *(number_text(float(values.get(n, "nan"))) for n in numbers)]]
    for measure, metric in HEADLINE_METRICS.items():
        figures = [by_measure[measure].get(number) for number in numbers]
        texts = ["not confirmed" if f is None else interval_text(f) for f in figures]
        rows.append([f"test {metric.label}", *texts])
    rows.append(["seeds", *(str(known[n].seeds) if n in known else "" for n in numbers)])
    return table_html(heads, rows, "Confirmed figures")


def _settings(data: ReportData) -> str:
    if data.is_run:
        given = data.record.get("settings") or {}
        rows = [[name, _plain_value(value)] for name, value in sorted(given.items())]
        table = table_html(["setting", "value"], rows, "Settings of this run")
        return f"<details><summary>Settings of this run</summary>{table}</details>"
    if data.best is None or not data.settings:
        return ""
    first = data.published
    if first is not None and first.number == data.best.number:
        first = None  # it is the same column
    rows = []
    for setting in data.settings:
        column = f"param_{setting.name}"
        texts = [setting.text(data.best[column])]
        if first is not None:
            texts.append(setting.text(first[column]))
        rows.append([setting.name, *(text or "not in use" for text in texts), setting.range_text])
    heads = ["setting", f"best (trial {data.best.number})"]
    heads += ["published"] * (first is not None) + ["searched"]
    return table_html(heads, rows, "Settings")


def _plain_value(value: Any) -> str:
    return "none" if value is None else number_text(value)
