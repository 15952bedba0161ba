"""Searched settings: normalized values, bounds and texts."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bbam_ray.report.figures import log_ticks, plotly_text
from bbam_ray.report.report_data import ReportData, SearchedSetting
from bbam_ray.report.space_figures import bound_notes, scale_and_margin, settings_section


@pytest.mark.parametrize(
    ("setting", "value", "end"),
    [
        (SearchedSetting("a", None, 0.2, 0.5), 0.5, "upper"),
        (SearchedSetting("a", None, 0.2, 0.5), 0.4941, "upper"),
        (SearchedSetting("a", None, 0.2, 0.5), 0.49, None),
        (SearchedSetting("a", None, 0.2, 0.5), 0.205, "lower"),
        (SearchedSetting("a", None, 1e-4, 1e-2, True), 1.09e-4, "lower"),
        (SearchedSetting("a", None, 1e-4, 1e-2, True), 1.2e-4, None),  # near, but not in logarithms
        (SearchedSetting("a", None, 2, 2), 2, None),
        (SearchedSetting("a", None, 0.2, 0.5), math.nan, None),
        (SearchedSetting("a", None, 0.2, 0.5), None, None),
        (SearchedSetting("a", ("0.2", "0.5")), 0.5, None),
        (SearchedSetting("a"), 0.5, None),
    ],
)
def test_a_value_within_two_percent_of_the_range_is_at_its_bound(
    setting: SearchedSetting, value: float | None, end: str | None
) -> None:
    assert setting.bound(value) == end


def test_a_note_names_the_setting_at_its_bound(
    write_study: Callable[..., Path], tmp_path: Path
) -> None:
    notes = bound_notes(ReportData(write_study(tmp_path / "upper", labels=1)))
    assert len(notes) == 1
    assert notes[0].startswith("scale = 30 is at its upper bound: widen its range")
    inside = ReportData(write_study(tmp_path / "inside", labels=1, best_scale=17.0))
    assert bound_notes(inside) == []
    section = settings_section(ReportData(tmp_path / "upper"))
    assert section is not None and len(section.figures) == 5
    assert section.figures[0].title == "scale: best at its upper bound"
    assert section.figures[0].figure.layout.xaxis.type == "log"
    assert section.figures[1].figure.layout.xaxis.type is None


def test_normalized_values_follow_the_scale_and_keep_missing_ones() -> None:
    log = SearchedSetting("a", None, 1, 100, True).normalized(
        pd.Series([1.0, 10.0, 100.0, math.nan])
    )
    np.testing.assert_allclose(log, [0, 0.5, 1, math.nan])
    choices = SearchedSetting("a", ("5", "20", "inf")).normalized(
        pd.Series([5.0, math.inf, math.nan])
    )
    np.testing.assert_allclose(choices, [0, 1, math.nan])
    flags = SearchedSetting("a", ("true", "false")).normalized(
        pd.Series([True, None, False], dtype=object)
    )
    np.testing.assert_allclose(flags, [0, math.nan, 1])


def test_the_surface_needs_eight_trials_and_both_settings(
    write_study: Callable[..., Path], tmp_path: Path
) -> None:
    def kinds(trials: int) -> list[str]:
        folder = write_study(tmp_path / f"t{trials}", trials=trials, labels=1)
        report_figure = scale_and_margin(ReportData(folder))
        return [] if report_figure is None else [trace.type for trace in report_figure.figure.data]

    assert kinds(10) == ["contour", "scatter"]  # 8 complete
    assert kinds(9) == ["scatter"]
    assert kinds(3) == []  # one complete


def test_ticks_of_a_logarithmic_axis_are_round_numbers() -> None:
    assert log_ticks(10, 30)["ticktext"] == ["10", "20"]
    assert log_ticks(0.3, 3)["ticktext"] == ["0.5", "1", "2"]
    assert log_ticks(1e-6, 1)["tickvals"] == pytest.approx([10.0**p for p in range(-6, 1)])


def test_text_in_figures_has_no_tags() -> None:
    assert plotly_text("<a href='http://x.example'>b</a> & c") == (
        "&lt;a href='http://x.example'&gt;b&lt;/a&gt; &amp; c"
    )
