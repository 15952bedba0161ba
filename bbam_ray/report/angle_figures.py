"""How angles are spread before and after the balance of variances, for the best trial."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from plotly.subplots import make_subplots

from bbam_ray.report.drawing import NEGATIVE, POSITIVE, Picture
from bbam_ray.report.report_data import ReportData

_STEP = 3.0  # degrees
_TINY = float(np.finfo(np.float32).tiny)


def balance_map(
    means: np.ndarray, variances: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Slope and offset of psi = a theta + b for one label, each (2,): the map of ``core/angles.py``.

    a_p = sqrt((v_0 + v_1) / 2 / v_p), b_p = (1 - a_p) mu_p (paper, 3.2); the identity where a variance
    is not positive and finite or rests on fewer than two samples. Computed here without torch, which a
    report does not load; a test holds the two equal.

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
    """Counts of bins with some edges, on the bins of a grid; even within each bin.

    Args:
        counts: (n,).
        edges: (n + 1,) ascending.
        grid: (m + 1,) ascending; counts beyond its ends are lost.

    Returns:
        (m,).
    """
    return np.diff(np.interp(grid, edges, np.concatenate([[0.0], np.cumsum(counts)])))


def angle_histograms(data: ReportData) -> Picture | None:
    """Angles of positives and negatives, before and after balancing, with a chooser of labels.

    First all labels together about their means: the balance changes widths about each label's own mean,
    so only there the sum over labels shows what it does. Then all labels as they are, then each label.
    None where no angles were recorded.
    """
    rows = _rows_with_angles(data)
    if rows.empty:
        return None
    spreads = [_Spread(row) for _, row in rows.iterrows()]
    centred = [(part.counts, part.edges(centred=True)) for part in spreads]
    as_they_are = [(part.counts, part.edges(centred=False)) for part in spreads]
    shown = [
        ("all labels, about their means", _drawn(centred)),
        ("all labels", _drawn(as_they_are)),
        *((part.name, _drawn([one])) for part, one in zip(spreads, as_they_are, strict=True)),
    ]
    traces, layout = shown[0][1]
    titles = tuple(layout.values())
    figure = make_subplots(2, 1, shared_xaxes=True, vertical_spacing=0.16, subplot_titles=titles)
    for place, (name, colour) in enumerate((("negatives", NEGATIVE), ("positives", POSITIVE)) * 2):
        figure.add_scatter(
            **{key: values[place] for key, values in traces.items()},
            row=place // 2 + 1,
            col=1,
            name=name,
            showlegend=place < 2,
            mode="lines",
            line={"color": colour, "shape": "hvh", "width": 1.5},
            fill="tozeroy",
        )
    figure.update_annotations(font={"size": 12})
    figure.update_layout(legend={"y": 1.08})  # above the title of the upper picture
    figure.update_xaxes(title="degrees", row=2, col=1)
    figure.update_xaxes(showticklabels=True)
    figure.update_yaxes(title="%", rangemode="tozero")
    return Picture(
        "angles",
        f"Angles to the label prototypes, epoch {int(rows.epoch.iloc[0])}",
        figure,
        _note(data),
        height=460,
        choices=tuple(shown),
    )


def _rows_with_angles(data: ReportData) -> pd.DataFrame:
    """The labels' rows of the best epoch, else of the last one that has angles."""
    rows = data.best_labels
    if rows.empty or not {"angles_positive", "angles_negative", "variance_positive"} <= set(rows):
        return pd.DataFrame()
    rows = rows[rows.angles_positive.notna() & rows.angles_negative.notna()]
    if rows.empty:
        return rows
    best = data.best.best_epoch
    epoch = best if (rows.epoch == best).any() else rows.epoch.max()
    chosen: pd.DataFrame = rows[rows.epoch == epoch]
    return chosen


def _note(data: ReportData) -> str:
    on = data.chosen("balance")
    note = "Share of each polarity in steps of 3 degrees; standard deviations of negatives and positives."
    if on is not None and not bool(on):
        note += (
            " Balancing is off in this trial: training used the upper picture; the lower one shows what "
            "balancing would do."
        )
    elif data.chosen("clamp"):
        note += " This trial clamps balanced angles to [0, 180] degrees, which is not drawn."
    return note


class _Spread:
    """A label's angles: counts by polarity, and where their bins end before and after the map."""

    def __init__(self, row: Any) -> None:
        self.name = str(row.label)
        self.counts = np.stack(
            [np.asarray(row.angles_negative, float), np.asarray(row.angles_positive, float)]
        )
        self._means = np.array([row.mean_negative, row.mean_positive], dtype=float)
        variances = np.array([row.variance_negative, row.variance_positive], dtype=float)
        seen = np.array([row.n_negative, row.n_positive], dtype=float)
        self._slope, self._offset = balance_map(self._means, variances, seen)

    def edges(self, *, centred: bool) -> np.ndarray:
        """(2 times, 2 polarities, bins + 1) in degrees: before, after; about the mean if ``centred``."""
        angles = np.linspace(0, np.pi, self.counts.shape[1] + 1)
        after = self._slope[:, None] * angles + self._offset[:, None]
        both = np.stack([np.stack([angles, angles]), after])
        if centred:
            both = both - np.nan_to_num(self._means)[None, :, None]
        return both * (180 / np.pi)


def _drawn(parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[dict[str, Any]]:
    """Four curves (before and after, negatives and positives) on one grid, for Plotly's ``update``.

    Args:
        parts: counts (2, bins) and edges (2 times, 2, bins + 1) of each label to add up.
    """
    ends = [
        edges[:, polarity, [bins[0], bins[-1] + 1]]
        for counts, edges in parts
        for polarity in (0, 1)
        if len(bins := np.flatnonzero(counts[polarity]))
    ] or [np.array([0.0, 180.0])]
    low, high = np.min(ends) / _STEP, np.max(ends) / _STEP
    grid = np.arange(np.floor(low) - 1, np.ceil(high) + 2) * _STEP
    centres = (grid[1:] + grid[:-1]) / 2
    data: dict[str, list[Any]] = {"x0": [float(centres[0])] * 4, "dx": [_STEP] * 4, "y": []}
    layout = {}
    for time, when in enumerate(("Before", "After balancing")):
        spreads = []
        for polarity in (0, 1):
            total = sum(rebinned(c[polarity], e[time, polarity], grid) for c, e in parts)
            share = np.asarray(total) / max(1.0, float(np.sum(total)))
            mean = (share * centres).sum()
            spreads.append(float(np.sqrt((share * (centres - mean) ** 2).sum())))
            data["y"].append([round(100 * float(part), 3) for part in share])
        text = f"{when}: deviation {spreads[0]:.1f}° and {spreads[1]:.1f}°"
        layout[f"annotations[{time}].text"] = text
    return [data, layout]
