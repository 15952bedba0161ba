"""Angle histograms: the same map as in the core, counts are kept, and widths become equal."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from bbam_ray.core.angles import balance_coefficients
from bbam_ray.core.statistics import AngleStatistics
from bbam_ray.report.angle_figures import angle_histograms, rebinned, slope_and_offset
from bbam_ray.report.report_data import ReportData


@pytest.mark.parametrize(
    ("variances", "counts"),
    [
        ((0.04, 0.09), (900, 50)),
        ((0.09, 0.04), (2, 2)),
        ((0.04, 0.09), (900, 1)),
        ((0.0, 0.09), (900, 50)),
        ((math.nan, 0.09), (0, 50)),
    ],
)
def test_slope_and_offset_equal_those_of_the_core(
    variances: tuple[float, float], counts: tuple[float, float]
) -> None:
    means = (1.5, 1.0)
    columns = [torch.tensor(v)[:, None].float() for v in (means, variances, counts)]
    slope, offset = balance_coefficients(AngleStatistics(*columns))
    result = slope_and_offset(*(np.array(v, dtype=float) for v in (means, variances, counts)))
    np.testing.assert_allclose(result[0], slope[:, 0].numpy(), rtol=1e-6)
    np.testing.assert_allclose(result[1], offset[:, 0].numpy(), atol=1e-6)


def test_rebinning_keeps_counts_and_splits_bins_uniformly() -> None:
    counts, edges = np.array([4.0, 2.0]), np.array([0.0, 2.0, 3.0])
    np.testing.assert_allclose(rebinned(counts, edges, np.array([-1.0, 1, 2.5, 9])), [2, 3, 1])
    fine = rebinned(counts, edges, np.linspace(-5, 5, 101))
    assert fine.sum() == pytest.approx(6)


def test_balancing_makes_the_standard_deviations_equal(rich: Path) -> None:
    report_figure = angle_histograms(ReportData(rich))
    assert report_figure is not None
    names = [name for name, _ in report_figure.options]
    assert names[:3] == ["all labels, relative to their means", "all labels", "label 00"]
    assert len(names) == 22
    for name, (data, layout) in report_figure.options:
        if name == "all labels":
            continue
        texts = list(layout.values())
        before, after = (list(map(float, re.findall(r"(\d+\.\d)°", t))) for t in texts)
        # Standard deviations 0.2 and 0.3 rad; after, the root of their mean square: 0.255 rad.
        assert before == pytest.approx([11.5, 17.2], abs=0.3)
        assert after == pytest.approx([14.6, 14.6], abs=0.3)
        assert all(sum(shares) == pytest.approx(100, abs=0.1) for shares in data["y"])
    assert len(report_figure.figure.data) == 4


def test_without_balancing_the_caption_explains_the_lower_plot(
    rich: Path, write_study: Callable[..., Path], tmp_path: Path
) -> None:
    off = angle_histograms(ReportData(write_study(tmp_path / "off", labels=2, balance=False)))
    on = angle_histograms(ReportData(rich))
    assert on is not None and "off" not in on.caption
    assert off is not None and "Balancing is off in this trial" in off.caption


def test_without_recorded_angles_there_is_no_angle_figure(
    write_study: Callable[..., Path], tmp_path: Path
) -> None:
    import pyarrow.parquet as pq

    folder = write_study(tmp_path / "old", labels=2)
    path = folder / "labels.parquet"
    table = pq.ParquetFile(path).read()
    dropped = ["angles_positive", "angles_negative", "pseudo_recall", "n_negative_kept"]
    pq.write_table(table.drop_columns(dropped), path)
    assert angle_histograms(ReportData(folder)) is None
    from bbam_ray.report.study_report import write_report

    text = write_report(folder).read_text(encoding="utf-8")
    assert 'id="plot-vdfd"' in text and 'id="plot-angles"' not in text
