"""Curves, lines through settings, labels over epochs and times: what is in them, and what is left out."""

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
from bbam_ray.results.store import StudyStore
from bbam_ray.results.study import StudyRecord


def pictures(data: ReportData) -> dict[str, object]:
    return {p.name: p for group in report_sections(data) for p in group.figures}


def test_the_best_curve_lies_on_top_and_few_trials_are_all_drawn(rich: Path) -> None:
    picture = learning_curves(ReportData(rich))
    assert picture is not None and picture.caption == ""
    curves = picture.figure.data
    assert len(curves) == 14
    assert [c.name for c in curves[-2:]] == ["trial 0 (published)", "trial 1 (best)"]
    assert [c.line.color for c in curves[-2:]] == [PUBLISHED, BEST]
    assert [c.name for c in curves if c.showlegend] == ["trial 0 (published)", "trial 1 (best)"]


def test_of_many_trials_the_best_are_drawn_and_the_published_one(
    write_study: Callable[..., Path], tmp_path: Path
) -> None:
    data = ReportData(write_study(tmp_path / "many", trials=50, labels=1, epochs=2))
    picture = learning_curves(data)
    assert picture is not None
    assert picture.caption == "The 39 best of 50 trials, and the published settings."
    drawn = {int(curve.name.split()[1]) for curve in picture.figure.data}
    ranked = [n for n in data.trials.number if n != 0][:39]
    assert drawn == {0, *ranked}


def test_a_line_goes_through_each_trials_settings_with_gaps(rich: Path) -> None:
    data = ReportData(rich)
    picture = parallel_coordinates(data)
    assert picture is not None
    lines = [trace for trace in picture.figure.data if trace.line.width]
    assert len(lines) == len(data.complete)
    assert lines[-1].name == "trial 1" and lines[-1].line.width > lines[0].line.width
    by_name = {line.name: line for line in lines}
    assert by_name["trial 3"].y[4] is None  # balance is off there, so clamp is not in use
    assert by_name["trial 1"].y[0] == pytest.approx(1)


def test_many_labels_become_mean_band_and_the_extremes(
    rich: Path, write_study: Callable[..., Path], tmp_path: Path
) -> None:
    group = method_section(ReportData(rich))
    assert group is not None
    vdfd = {p.name: p for p in group.figures}["vdfd"]
    names = [trace.name for trace in vdfd.figure.data]
    assert names[:2] == ["10 % to 90 % of labels", "mean of 20 labels"]
    assert names[2:] == [f"label {k:02}" for k in (19, 18, 17, 16, 15)]
    mean = vdfd.figure.data[1]
    assert list(mean.x) == [3, 4]
    np.testing.assert_allclose(mean.y, [0.05 / 3 + 0.0095, 0.05 / 4 + 0.0095])
    precision = {p.name: p for p in group.figures}["pseudo-precision"]
    assert "hidden labels" in precision.caption and "never sees" in precision.caption
    assert precision.figure.data[2].name == "label 00"  # the lowest

    few = method_section(ReportData(write_study(tmp_path / "few", labels=15)))
    assert few is not None
    assert [t.name for t in few.figures[0].figure.data] == [f"label {k:02}" for k in range(15)]


def test_bars_of_labels_are_sorted(rich: Path) -> None:
    group = method_section(ReportData(rich))
    assert group is not None
    by_name = {p.name: p for p in group.figures}
    bars = by_name["val-ap"].figure.data[0]
    assert list(bars.y) == sorted(bars.y, reverse=True) and bars.x[0] == "label 19"
    kept = by_name["negatives-kept"].figure.data
    assert [trace.name for trace in kept] == ["positives", "negatives kept", "negative candidates"]


def test_time_is_stacked_by_phase_and_what_was_spent_is_told(rich: Path) -> None:
    data = ReportData(rich)
    by_trial, by_epoch = time_by_phase(data)
    assert [t.name for t in by_epoch.figure.data] == ["refresh", "train", "evaluate"]
    assert list(by_epoch.figure.data[0].y) == [0, 0, 0.4, 0.4]
    assert len(by_trial.figure.data[0].x) == 14
    told = " ".join(cost_sentences(data))
    assert "4.10 GPU-hours" in told  # 14 trials of 0.25, 6 confirming runs of 0.1
    assert "cost 7.00" in told


def test_names_of_pictures_are_unique(rich: Path) -> None:
    named = [p.name for group in report_sections(ReportData(rich)) for p in group.figures]
    assert len(set(named)) == len(named)


def test_without_a_balance_of_its_own_a_method_has_no_angle_pictures(
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
    found = pictures(ReportData(folder))
    assert "val-ap" in found
    assert not {"vdfd", "angles", "pseudo-precision", "thresholds", "negatives-kept"} & set(found)


def test_a_running_study_is_reported_as_far_as_it_is(
    write_study: Callable[..., Path], tmp_path: Path
) -> None:
    """The running trial has epochs and no row yet; nothing was confirmed."""
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
