"""The value of each trial with its standard error."""

from __future__ import annotations

import plotly.graph_objects as go

from bbam_ray.report.figures import BEST, OTHERS, PUBLISHED, ReportFigure
from bbam_ray.report.report_data import ReportData


def trial_values(data: ReportData) -> ReportFigure | None:
    """The metric of every complete trial with its standard error, by number; None without errors."""
    rows = data.complete.sort_values("number")
    if "standard_error" not in rows or not rows["standard_error"].notna().any() or len(rows) < 2:
        return None
    best_number = None if data.best is None else int(data.best.number)
    published = rows[(rows.number == 0) & (rows.number != best_number)]
    groups = (
        ("best", BEST, "star", rows[rows.number == best_number]),
        ("published settings", PUBLISHED, "diamond", published),
        ("other trials", OTHERS, "circle", rows[~rows.number.isin([0, best_number])]),
    )
    figure = go.Figure()
    for name, color, symbol, part in groups:
        if len(part):
            values, errors = part[data.metric], part.standard_error.fillna(0.0)
            figure.add_scatter(
                x=part.number.tolist(),
                y=values.tolist(),
                error_y={
                    "type": "data",
                    "symmetric": False,
                    "array": errors.clip(upper=1.0 - values).tolist(),  # metrics lie in [0, 1]
                    "arrayminus": errors.clip(upper=values).tolist(),
                    "thickness": 1.5,
                    "color": color,
                },
                mode="markers",
                marker={"size": 9, "color": color, "symbol": symbol},
                name=name,
            )
    figure.update_xaxes(title="trial", dtick=max(1, len(rows) // 12))
    figure.update_yaxes(title=data.metric)
    caption = (
        "Mean over folds and its standard error (with one fold: of its validation samples). Folds differ "
        "more than trials do, so the choice compares trials fold by fold."
    )
    return ReportFigure("trial-values", f"{data.metric} of the trials", figure, caption)
