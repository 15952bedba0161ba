"""Learning curves, parallel coordinates, values per label and times: their content and their limits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bbam_ray.report.figures import BEST, PUBLISHED
from bbam_ray.report.method_figures import method_section
from bbam_ray.report.report_data import ReportData
from bbam_ray.report.search_figures import (
    cost_sentences,
    learning_curves,
    parallel_coordinates,
    time_by_phase,
)
from bbam_ray.report.study_report import report_sections, write_report
from bbam_ray.report.trial_figures import trial_values
from bbam_ray.results.store import StudyStore
from bbam_ray.results.study import StudyRecord


def figures_by_name(data: ReportData) -> dict[str, object]:
    return {f.name: f for section in report_sections(data) for f in section.figures}


def test_the_best_curve_lies_on_top_and_few_trials_are_all_drawn(rich: Path) -> None:
    report_figure = learning_curves(ReportData(rich))
    assert report_figure is not None and report_figure.caption == ""
    curves = report_figure.figure.data
    assert len(curves) == 14
    assert [c.name for c in curves[-2:]] == ["trial 0 (published)", "trial 1 (best)"]
    assert [c.line.color for c in curves[-2:]] == [PUBLISHED, BEST]
    assert [c.name for c in curves if c.showlegend] == ["trial 0 (published)", "trial 1 (best)"]


def test_trials_are_drawn_with_their_standard_errors(
    write_study: Callable[..., Path], tmp_path: Path
) -> None:
    folder = write_study(tmp_path / "errors", trials=5, labels=1, epochs=2)
    assert trial_values(ReportData(folder)) is None  # a study of an older version has none
    store = StudyStore(folder, {"scale": "float", "margin": "float"})
    rows = store.trials.rows()
    for index, row in enumerate(rows):
        row["standard_error"] = None if index == 3 else 0.01 * (index + 1)
    store.trials.put(rows)
    store.flush()
    data = ReportData(folder)
    report_figure = trial_values(data)
    assert report_figure is not None
    drawn = {
        number: (value, error)
        for curve in report_figure.figure.data
        for number, value, error in zip(curve.x, curve.y, curve.error_y.array, strict=True)
    }
    expected = {
        row.number: (row[data.metric], 0.0 if np.isnan(row.standard_error) else row.standard_error)
        for _, row in data.complete.iterrows()
    }
    assert drawn == expected
    assert next(curve.name for curve in report_figure.figure.data) == "best"


def test_of_many_trials_the_best_and_the_published_are_drawn(
    write_study: Callable[..., Path], tmp_path: Path
) -> None:
    data = ReportData(write_study(tmp_path / "many", trials=50, labels=1, epochs=2))
    report_figure = learning_curves(data)
    assert report_figure is not None
    assert report_figure.caption == "The 39 best of 50 trials, and the published settings."
    drawn = {int(curve.name.split()[1]) for curve in report_figure.figure.data}
    ranked = [n for n in data.trials.number if n != 0][:39]
    assert drawn == {0, *ranked}


def test_parallel_coordinates_have_gaps_where_a_setting_is_not_used(rich: Path) -> None:
    data = ReportData(rich)
    report_figure = parallel_coordinates(data)
    assert report_figure is not None
    lines = [trace for trace in report_figure.figure.data if trace.line.width]
    assert len(lines) == len(data.complete)
    assert lines[-1].name == "trial 1" and lines[-1].line.width > lines[0].line.width
    by_name = {line.name: line for line in lines}
    assert by_name["trial 3"].y[4] is None  # balance is off there, so clamp is not used
    assert by_name["trial 1"].y[0] == pytest.approx(1)


def test_many_labels_become_mean_band_and_the_extremes(
    rich: Path, write_study: Callable[..., Path], tmp_path: Path
) -> None:
    section = method_section(ReportData(rich))
    assert section is not None
    vdfd = {f.name: f for f in section.figures}["vdfd"]
    names = [trace.name for trace in vdfd.figure.data]
    assert names[:2] == ["10 % to 90 % of labels", "mean of 20 labels"]
    assert names[2:] == [f"label {k:02}" for k in (19, 18, 17, 16, 15)]
    mean = vdfd.figure.data[1]
    assert list(mean.x) == [3, 4]
    np.testing.assert_allclose(mean.y, [0.05 / 3 + 0.0095, 0.05 / 4 + 0.0095])
    precision = {f.name: f for f in section.figures}["pseudo-precision"]
    assert "hidden labels" in precision.caption and "never sees" in precision.caption
    assert precision.figure.data[2].name == "label 00"  # the lowest

    few = method_section(ReportData(write_study(tmp_path / "few", labels=15)))
    assert few is not None
    assert [t.name for t in few.figures[0].figure.data] == [f"label {k:02}" for k in range(15)]


def test_bars_of_labels_are_sorted(rich: Path) -> None:
    section = method_section(ReportData(rich))
    assert section is not None
    by_name = {f.name: f for f in section.figures}
    bars = by_name["val-ap"].figure.data[0]
    assert list(bars.y) == sorted(bars.y, reverse=True) and bars.x[0] == "label 19"
    kept = by_name["negatives-kept"].figure.data
    assert [trace.name for trace in kept] == ["positives", "negatives kept", "negative candidates"]


def test_time_is_stacked_by_phase_and_costs_are_summed(rich: Path) -> None:
    data = ReportData(rich)
    by_trial, by_epoch = time_by_phase(data)
    assert [t.name for t in by_epoch.figure.data] == ["refresh", "train", "evaluate"]
    assert list(by_epoch.figure.data[0].y) == [0, 0, 0.4, 0.4]
    assert len(by_trial.figure.data[0].x) == 14
    sentences = " ".join(cost_sentences(data))
    assert "4.10 GPU-hours" in sentences  # 14 trials of 0.25, 6 confirmation runs of 0.1
    assert "cost 7.00" in sentences


def test_names_of_figures_are_unique(rich: Path) -> None:
    named = [p.name for section in report_sections(ReportData(rich)) for p in section.figures]
    assert len(set(named)) == len(named)


def test_a_method_that_records_no_angles_has_no_angle_figures(
    write_study: Callable[..., Path], tmp_path: Path
) -> None:
    import pyarrow.parquet as pq

    folder = write_study(tmp_path / "supervised", labels=3, method="supervised")
    path = folder / "labels.parquet"
    table = pq.ParquetFile(path).read()
    rows = [
        {k: v if k in ("study", "trial_id", "number", "epoch", "label", "val_ap") else None
         for k, v in row.items()}
        for row in table.to_pylist()
    ]  # fmt: skip
    import pyarrow as pa

    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)
    figures = figures_by_name(ReportData(folder))
    assert "val-ap" in figures
    assert not {"vdfd", "angles", "pseudo-precision", "thresholds", "negatives-kept"} & set(figures)


def test_a_running_study_has_a_report_of_its_ended_trials(
    write_study: Callable[..., Path], tmp_path: Path
) -> None:
    """The running trial has epochs and no row in ``trials`` yet; nothing was confirmed."""
    folder = write_study(tmp_path / "running", trials=3, labels=2, failed=0, pruned=0, confirmed=())
    store = StudyStore(
        folder,
        {
            **dict.fromkeys(("scale", "margin", "negative_ratio"), "float"),
            **dict.fromkeys(("balance", "clamp"), "bool"),
        },
    )
    store.history.put([{"study": "running", "trial_id": "t9", "number": 9, "epoch": 1}])
    store.flush()
    (folder / "confirm.parquet").unlink()
    StudyRecord.open(folder).update(status="RUNNING", num_samples=20, ended_at=None)
    text = write_report(folder).read_text(encoding="utf-8")
    assert '<p class="warn">Status: RUNNING. 3 of 20 trials have ended: 3 complete.</p>' in text
    assert "ended not yet" in text and "Confirmed" not in text
    curves = learning_curves(ReportData(folder))
    assert curves is not None and "trial 9" in [c.name for c in curves.figure.data]

    for table in ("history", "labels"):
        (folder / f"{table}.parquet").unlink()
    assert "Learning curves" not in write_report(folder).read_text(encoding="utf-8")
