"""The top of a report: the best configuration and what it reaches."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from bbam_ray.core.metric_names import HEADLINE_METRICS
from bbam_ray.report.report_data import ReportData
from bbam_ray.report.tables import Table, number_text
from bbam_ray.results.schemas import COMPLETE, FAILED, PRUNED
from bbam_ray.results.summary import Confirmed, confirmed_metrics, gain_sentences

_STATES = {COMPLETE: "complete", PRUNED: "pruned", FAILED: "failed"}


@dataclass(frozen=True)
class TrialValue:
    """A trial's value of the objective on validation data.

    Args:
        epoch: the epoch of that value; None if not recorded.
    """

    number: int
    value: float
    epoch: float | None = None


@dataclass(frozen=True)
class Overview:
    """What ``_overview.html.j2`` shows.

    Args:
        metric: name of the objective.
        is_run: a single run, not a search.
        complete: number of complete trials.
        best: the best trial; None without a complete one.
        published: trial 0 with the published settings; None if it did not complete.
        confirmed: test mAP over seeds of each confirmed configuration.
        gains: what the final answer gained, in sentences; empty without one.
        status: of the study, for example COMPLETE or RUNNING.
        ended, planned: number of trials; ``planned`` is None in studies that did not record it.
        states: how many trials ended in which state, as texts.
        metrics: test metrics of the confirmed configurations; None without any.
        settings: settings of the best trial and of the published one, or of a single run.
    """

    metric: str
    is_run: bool
    complete: int
    best: TrialValue | None
    published: TrialValue | None
    confirmed: list[Confirmed]
    gains: list[str]
    status: str
    ended: int
    planned: int | None
    states: list[str]
    metrics: Table | None
    settings: Table | None

    @property
    def finished(self) -> bool:
        """Whether the study has ended without a failure, so that its status needs no emphasis."""
        return self.is_run or self.status == COMPLETE


def overview(data: ReportData) -> Overview:
    """Collect the overview of a study or run."""
    counts = data.trials.state.value_counts()
    return Overview(
        metric=data.metric,
        is_run=data.is_run,
        complete=len(data.complete),
        best=_best(data),
        published=_published(data),
        confirmed=confirmed_metrics(data.confirm_rows),
        gains=gain_sentences(data.record),
        status=str(data.record["status"]),
        ended=len(data.trials),
        planned=data.record.get("num_samples"),
        states=[f"{counts[s]} {text}" for s, text in _STATES.items() if counts.get(s, 0)],
        metrics=_metrics(data),
        settings=_run_settings(data) if data.is_run else _settings(data),
    )


def interval_text(confirmed: Confirmed) -> str:
    """ "0.8524 [0.8158, 0.8890]": mean over seeds and its 95 % confidence interval."""
    if confirmed.interval is None:
        return f"{confirmed.mean:.4f}"
    low, high = confirmed.interval
    return f"{confirmed.mean:.4f} [{low:.4f}, {high:.4f}]"


def _best(data: ReportData) -> TrialValue | None:
    best = data.best
    if best is None:
        return None
    epoch = best.best_epoch if pd.notna(best.best_epoch) else None
    return TrialValue(best.number, best[data.metric], epoch)


def _published(data: ReportData) -> TrialValue | None:
    trial = data.published
    if trial is None or trial.state != COMPLETE or pd.isna(trial[data.metric]):
        return None
    return TrialValue(trial.number, trial[data.metric])


def _metrics(data: ReportData) -> Table | None:
    """A column per answer that was measured on the test part."""
    by_metric = {
        name: {c.rank: c for c in confirmed_metrics(data.confirm_rows, f"test_{name}")}
        for name in HEADLINE_METRICS
    }
    answers = by_metric["map"]
    if not answers or data.best is None:
        return None
    values = data.trials.set_index("number")[data.metric]
    columns = ["", *("this run" if data.is_run else a.title for a in answers.values())]
    cells = [number_text(float(values.get(a.number, "nan"))) for a in answers.values()]
    rows = [[f"{data.metric} of its trial", *("" if c == "nan" else c for c in cells)]]
    for name, metric in HEADLINE_METRICS.items():
        cells_of_metric = (by_metric[name].get(rank) for rank in answers)
        texts = ["" if cell is None else interval_text(cell) for cell in cells_of_metric]
        rows.append([f"test {metric.label}", *texts])
    errors = {c.rank: c for c in confirmed_metrics(data.confirm_rows, "test_calibration_error")}
    if errors:
        cells = [interval_text(errors[rank]) if rank in errors else "" for rank in answers]
        rows.append(["test calibration error", *cells])
    rows.append(["seeds", *(str(each.seeds) for each in answers.values())])
    networks = {row["rank"]: row["networks"] for row in data.confirm_rows if row.get("networks")}
    if networks:
        rows.append(["networks per sample", *(f"{networks.get(r, 1):.0f}" for r in answers)])
    return Table("Test metrics", columns, rows)


def _settings(data: ReportData) -> Table | None:
    """The searched settings: values of the best and the published trial, and the range."""
    if data.best is None or not data.settings:
        return None
    columns, trials = ["setting", f"best (trial {data.best.number})"], [data.best]
    if data.published is not None and data.published.number != data.best.number:
        columns.append("published")
        trials.append(data.published)
    rows = []
    for setting in data.settings:
        values = (setting.text(trial[f"param_{setting.name}"]) for trial in trials)
        rows.append([setting.name, *(value or "not used" for value in values), setting.range_text])
    return Table("Settings", [*columns, "searched range"], rows)


def _run_settings(data: ReportData) -> Table:
    settings = data.record.get("settings") or {}
    rows = [
        [name, "none" if value is None else number_text(value)]
        for name, value in sorted(settings.items())
    ]
    return Table("Settings of this run", ["setting", "value"], rows)
