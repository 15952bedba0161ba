"""Histograms of the angles before and after variance balancing, for the best trial."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from plotly.subplots import make_subplots

from bbam_ray.report.figures import DASHES, NEGATIVE, POSITIVE, ReportFigure
from bbam_ray.report.report_data import ReportData

_STEP = 3.0  # degrees
_TINY = float(np.finfo(np.float32).tiny)


def slope_and_offset(
    means: np.ndarray, variances: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Slope and offset of psi = a theta + b for one label, each (2,).

    a_p = sqrt((v_0 + v_1) / 2 / v_p), b_p = (1 - a_p) mu_p (paper, 3.2). The identity if a variance is not
    positive and finite, or is that of fewer than two samples. The same as in ``core/angles.py``, which a
    report cannot use because it loads no torch; a test compares the two.

    Args:
        means: (2,) radians, negatives first.
        variances: (2,) radians squared.
        counts: (2,) samples.
    """
    usable = np.isfinite(means).all() and np.isfinite(variances).all()
    if not usable or (variances < _TINY).any() or (counts < 2).any():
        return np.ones(2), np.zeros(2)
    slope = np.sqrt(variances.mean() / variances)
    return slope, (1 - slope) * means


def rebinned(counts: np.ndarray, edges: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Counts of a histogram on other bins, as if they were uniform within each bin.

    Args:
        counts: (n,).
        edges: (n + 1,) of the bins, ascending.
        grid: (m + 1,) edges of the new bins, ascending; counts outside are dropped.

    Returns:
        (m,).
    """
    return np.diff(np.interp(grid, edges, np.concatenate([[0.0], np.cumsum(counts)])))


def angle_histograms(data: ReportData) -> ReportFigure | None:
    """Angles of positives and negatives before and after balancing, with a drop-down list of labels.

    The first option shows all labels relative to their means: balancing changes the width around each
    label's own mean, so only there the sum over labels shows its effect. Then all labels without this
    shift, then each label. None if no angles were recorded.
    """
    rows = _rows_with_angles(data)
    if rows.empty:
        return None
    labels = [_LabelAngles(row) for _, row in rows.iterrows()]
    centered = [(label.counts, label.edges(centered=True)) for label in labels]
    absolute = [(label.counts, label.edges(centered=False)) for label in labels]
    options = [
        ("all labels, relative to their means", _traces(centered)),
        ("all labels", _traces(absolute)),
        *((label.name, _traces([one])) for label, one in zip(labels, absolute, strict=True)),
    ]
    traces, layout = options[0][1]
    titles = tuple(layout.values())
    figure = make_subplots(2, 1, shared_xaxes=True, vertical_spacing=0.16, subplot_titles=titles)
    for index, (name, color) in enumerate((("negatives", NEGATIVE), ("positives", POSITIVE)) * 2):
        figure.add_scatter(
            **{key: values[index] for key, values in traces.items()},
            row=index // 2 + 1,
            col=1,
            name=name,
            showlegend=index < 2,
            mode="lines",
            line={"color": color, "shape": "hvh", "width": 1.5, "dash": DASHES[index % 2]},
            fill="tozeroy",
        )
    figure.update_annotations(font={"size": 12})
    figure.update_layout(legend={"y": 1.08})  # above the title of the upper plot
    figure.update_xaxes(title="degrees", row=2, col=1)
    figure.update_xaxes(showticklabels=True)
    figure.update_yaxes(title="%", rangemode="tozero")
    return ReportFigure(
        "angles",
        f"Angles to the label prototypes, epoch {int(rows.epoch.iloc[0])}",
        figure,
        _caption(data),
        height=460,
        options=tuple(options),
    )


def _rows_with_angles(data: ReportData) -> pd.DataFrame:
    """A row per label: of the best epoch, or of the last one with recorded angles."""
    rows = data.best_trial_labels
    if rows.empty or not {"angles_positive", "angles_negative", "variance_positive"} <= set(rows):
        return pd.DataFrame()
    rows = rows[rows.angles_positive.notna() & rows.angles_negative.notna()]
    if rows.empty:
        return rows
    best = data.best.best_epoch
    epoch = best if (rows.epoch == best).any() else rows.epoch.max()
    of_epoch: pd.DataFrame = rows[rows.epoch == epoch]
    return of_epoch


def _caption(data: ReportData) -> str:
    balance = data.best_setting("balance")
    caption = (
        "Share of the negatives and of the positives per 3 degrees; above each plot the standard "
        "deviations of negatives and positives."
    )
    if balance is not None and not bool(balance):
        caption += (
            " Balancing is off in this trial: training used the angles of the upper plot; the lower one "
            "shows what balancing would do."
        )
    elif data.best_setting("clamp"):
        caption += (
            " This trial clamps balanced angles to [0, 180] degrees, which is not shown here."
        )
    return caption


class _LabelAngles:
    """The histograms of a label's angles: counts of negatives and positives, and edges of their bins."""

    def __init__(self, row: Any) -> None:
        self.name = str(row.label)
        self.counts = np.stack(
            [np.asarray(row.angles_negative, float), np.asarray(row.angles_positive, float)]
        )
        self._means = np.array([row.mean_negative, row.mean_positive], dtype=float)
        variances = np.array([row.variance_negative, row.variance_positive], dtype=float)
        samples = np.array([row.n_negative, row.n_positive], dtype=float)
        self._slope, self._offset = slope_and_offset(self._means, variances, samples)

    def edges(self, *, centered: bool) -> np.ndarray:
        """Edges of the bins in degrees, before and after balancing; relative to the means if ``centered``.

        Returns:
            (2 times, 2 polarities, bins + 1).
        """
        angles = np.linspace(0, np.pi, self.counts.shape[1] + 1)
        after = self._slope[:, None] * angles + self._offset[:, None]
        both = np.stack([np.stack([angles, angles]), after])
        if centered:
            both = both - np.nan_to_num(self._means)[None, :, None]
        return both * (180 / np.pi)


def _traces(labels: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[dict[str, Any]]:
    """Four curves (before and after, negatives and positives) on one grid, for Plotly's ``update``.

    Args:
        labels: counts (2, bins) and edges (2 times, 2, bins + 1) of each label; the sum is drawn.
    """
    ends = [
        edges[:, polarity, [bins[0], bins[-1] + 1]]
        for counts, edges in labels
        for polarity in (0, 1)
        if len(bins := np.flatnonzero(counts[polarity]))
    ] or [np.array([0.0, 180.0])]
    low, high = np.min(ends) / _STEP, np.max(ends) / _STEP
    grid = np.arange(np.floor(low) - 1, np.ceil(high) + 2) * _STEP
    centers = (grid[1:] + grid[:-1]) / 2
    data: dict[str, list[Any]] = {"x0": [float(centers[0])] * 4, "dx": [_STEP] * 4, "y": []}
    layout = {}
    for time, when in enumerate(("Before", "After balancing")):
        deviations = []
        for polarity in (0, 1):
            total = sum(rebinned(c[polarity], e[time, polarity], grid) for c, e in labels)
            share = np.asarray(total) / max(1.0, float(np.sum(total)))
            mean = (share * centers).sum()
            deviations.append(float(np.sqrt((share * (centers - mean) ** 2).sum())))
            data["y"].append([round(100 * float(value), 3) for value in share])
        text = f"{when}: standard deviations {deviations[0]:.1f}° and {deviations[1]:.1f}°"
        layout[f"annotations[{time}].text"] = text
    return [data, layout]
