"""The answer, which comes first in a report: the best configuration and what it reaches."""

from __future__ import annotations

from html import escape
from typing import Any

import pandas as pd

from bbam_ray.report.drawing import number_text, table_html
from bbam_ray.report.material import Material
from bbam_ray.results.schemas import COMPLETE, FAILED, PRUNED
from bbam_ray.results.summary import Confirmed, confirmed_figures

MEASURES = {
    "map": "mAP",
    "micro_f1": "micro-F1",
    "macro_f1": "macro-F1",
    "hamming_loss": "Hamming loss",
    "one_error": "one-error",
}


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


def answer_html(material: Material) -> str:
    """Sentences, the table of confirmed figures and the table of settings, as HTML."""
    said = f'<p class="answer">{"<br>".join(_found(material))}</p>{_status(material)}'
    tables = f'<div class="tables">{_figures(material)}{_settings(material)}</div>'
    return said + tables + (_NOTE if material.confirm else "")


def _status(material: Material) -> str:
    """How far the study is; stressed while there may be more to come."""
    record, states = material.record, material.trials.state.value_counts()
    asked = record.get("num_samples")
    if material.is_run:
        return f'<p class="note">Status: {escape(str(record["status"]))}.</p>'
    ended = f"{len(material.trials)}{f' of {asked}' if asked else ''} trials have ended"
    counts = [f"{states.get(s, 0)} {text}" for s, text in _STATES.items() if states.get(s, 0)]
    shown = "note" if record["status"] == COMPLETE else "warn"
    told = f"Status: {escape(str(record['status']))}. {ended}: {', '.join(counts)}."
    return f'<p class="{shown}">{told}</p>'


def _found(material: Material) -> list[str]:
    best, metric = material.best, escape(material.metric)
    if best is None:
        return ["No trial was completed."]
    value = f"{metric} <b>{best[material.metric]:.4f}</b> on validation data"
    epoch = f" (epoch {best.best_epoch:g})" if pd.notna(best.best_epoch) else ""
    if material.is_run:
        lines = [f"One run: {value}{epoch}."]
    else:
        count = len(material.complete)
        lines = [
            f"Best of {count} complete trial{'s' * (count != 1)}: "
            f"<b>trial {best.number}</b>, {value}{epoch}."
        ]
    first = material.published
    if first is not None and first.number == best.number:
        lines.append("These are the published settings (trial 0).")
    elif first is not None and first.state == COMPLETE and pd.notna(first[material.metric]):
        lines.append(f"Published settings (trial 0): {first[material.metric]:.4f}.")
    for row in confirmed_figures(material.confirm):
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


def _figures(material: Material) -> str:
    """A row per confirmed configuration, with the published one even where it was not confirmed."""
    by_measure = {
        m: {f.number: f for f in confirmed_figures(material.confirm, f"test_{m}")} for m in MEASURES
    }
    numbers = list(by_measure["map"])
    if not numbers or material.best is None:
        return ""
    if material.published is not None and 0 not in numbers:
        numbers.append(0)
    values = material.trials.set_index("number")[material.metric]
    heads, known = [""], by_measure["map"]
    for number in numbers:
        name = "this run" if material.is_run else f"trial {number}"
        heads.append(name + " (published)" * (number == 0 and not material.is_run))
    rows = [[material.metric, *(number_text(float(values.get(n, "nan"))) for n in numbers)]]
    for measure, name in MEASURES.items():
        figures = [by_measure[measure].get(number) for number in numbers]
        texts = ["not confirmed" if f is None else interval_text(f) for f in figures]
        rows.append([f"test {name}", *texts])
    rows.append(["seeds", *(str(known[n].seeds) if n in known else "" for n in numbers)])
    return table_html(heads, rows, "Confirmed figures")


def _settings(material: Material) -> str:
    if material.is_run:
        given = material.record.get("settings") or {}
        rows = [[name, _plain_value(value)] for name, value in sorted(given.items())]
        table = table_html(["setting", "value"], rows, "Settings of this run")
        return f"<details><summary>Settings of this run</summary>{table}</details>"
    if material.best is None or not material.settings:
        return ""
    first = material.published
    if first is not None and first.number == material.best.number:
        first = None  # it is the same column
    rows = []
    for setting in material.settings:
        column = f"param_{setting.name}"
        texts = [setting.text(material.best[column])]
        if first is not None:
            texts.append(setting.text(first[column]))
        rows.append([setting.name, *(text or "not in use" for text in texts), setting.range_text])
    heads = ["setting", f"best (trial {material.best.number})"]
    heads += ["published"] * (first is not None) + ["searched"]
    return table_html(heads, rows, "Settings")


def _plain_value(value: Any) -> str:
    return "none" if value is None else number_text(value)
