"""Figures that compare several studies on one data set.

Each takes the figure's name, the studies and the names to show for them, and returns None where there is
nothing to draw.
"""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from bbam_ray.report.figures import BEST, ReportFigure, epoch_axis, plotly_text, series_line
from bbam_ray.report.overview import interval_text
from bbam_ray.report.report_data import ReportData
from bbam_ray.results.summary import Confirmed, confirmed_metrics


def test_map_of(data: ReportData) -> Confirmed | None:
    """The confirmed test mAP of the best configuration; None if it was not confirmed."""
    confirmed = confirmed_metrics(data.confirm_rows)
    return next((row for row in confirmed if row.rank == 1), None)


def confirmed_test_map(
    figure_name: str, reports: Sequence[ReportData], names: Sequence[str]
) -> ReportFigure | None:
    """Test mAP of the best configuration of each study, with its confidence interval."""
    maps = [
        (n, m) for n, d in zip(names, reports, strict=True) if (m := test_map_of(d)) is not None
    ]
    if not maps:
        return None
    maps = maps[::-1]  # Plotly draws from the bottom up
    intervals = [m.interval or (m.mean, m.mean) for _, m in maps]
    figure = go.Figure(
        go.Scatter(
            x=[m.mean for _, m in maps],
            y=[plotly_text(name) for name, _ in maps],
            mode="markers",
            marker={"size": 11, "color": BEST},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [high - m.mean for (_, high), (_, m) in zip(intervals, maps, strict=True)],
                "arrayminus": [
                    m.mean - low for (low, _), (_, m) in zip(intervals, maps, strict=True)
                ],
                "thickness": 2,
                "color": BEST,
            },
            text=[interval_text(m) for _, m in maps],
            hovertemplate="%{y}: %{text}<extra></extra>",
        )
    )
    figure.update_xaxes(title="test mAP").update_yaxes(type="category")
    caption = "Mean over seeds, with the 95 % confidence interval of the mean"
    caption += " (none for a single seed)." if any(m.interval is None for _, m in maps) else "."
    height = 130 + 36 * len(maps)
    return ReportFigure(figure_name, "Confirmed test mAP", figure, caption, height)


def best_so_far(
    figure_name: str, reports: Sequence[ReportData], names: Sequence[str]
) -> ReportFigure | None:
    """The best validation value after each trial."""
    figure = go.Figure()
    for index, (name, data) in enumerate(zip(names, reports, strict=True)):
        trials = data.complete.sort_values("number")
        if len(trials) < 2:
            continue
        values = trials[data.metric]
        best = values.cummax() if data.higher_is_better else values.cummin()
        figure.add_scatter(
            x=(trials.number + 1).tolist(),
            y=best.tolist(),
            name=plotly_text(name),
            line={"shape": "hv", "width": 2.5, **series_line(index)},
        )
    if not figure.data:
        return None
    figure.update_xaxes(title="trials").update_yaxes(title=f"best {_metrics(reports)}")
    caption = "On validation data, in the order of trials."
    return ReportFigure(figure_name, "Best so far over the search", figure, caption)


def best_learning_curves(
    figure_name: str, reports: Sequence[ReportData], names: Sequence[str]
) -> ReportFigure | None:
    """The metric over epochs of each study's best trial."""
    figure = go.Figure()
    for index, (name, data) in enumerate(zip(names, reports, strict=True)):
        history = data.history
        if data.best is None or history.empty or data.metric not in history:
            continue
        rows = history[history.number == data.best.number].sort_values("epoch")
        figure.add_scatter(
            x=rows.epoch.tolist(),
            y=rows[data.metric].tolist(),
            name=plotly_text(name),
            mode="lines+markers" if len(rows) < 3 else "lines",
            line={"width": 2.5, **series_line(index)},
        )
    if not figure.data:
        return None
    epochs = [epoch for line in figure.data for epoch in line.x]
    epoch_axis(figure, epochs).update_yaxes(title=_metrics(reports))
    return ReportFigure(figure_name, "Learning curves of the best trials", figure)


def _metrics(reports: Sequence[ReportData]) -> str:
    return " / ".join(dict.fromkeys(data.metric for data in reports))
