"""Figures of what the method records per label: variance bias, pseudo-labels, negatives, AP."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from bbam_ray.report.angle_figures import angle_histograms
from bbam_ray.report.figures import (
    BEST,
    COLORS,
    ReportFigure,
    Section,
    bar_marker,
    epoch_axis,
    plotly_text,
    series_line,
)
from bbam_ray.report.report_data import ReportData

MOST_LABELS = 15
_HIGHLIGHTED = 5
_DIAGNOSTIC = (
    "A diagnostic with the hidden labels of the unlabelled samples, which training never sees."
)


def method_section(data: ReportData) -> Section | None:
    """The section on the best trial; None without a complete trial or without rows of its labels."""
    rows = data.best_trial_labels
    if rows.empty:
        return None
    figures = [
        _over_epochs(
            rows,
            "vdfd",
            "Variance bias (VDFD) per label",
            "VDFD (rad²)",
            "Absolute difference of the angle variances of positives and negatives.",
        ),
        angle_histograms(data),
        _over_epochs(
            rows,
            "pseudo_precision",
            "Precision of pseudo-positives per label",
            "precision",
            _DIAGNOSTIC,
            highlight_lowest=True,
        ),
        _over_epochs(
            rows,
            "pseudo_recall",
            "Recall of pseudo-positives per label",
            "recall",
            _DIAGNOSTIC,
            highlight_lowest=True,
        ),
        *_at_best_epoch(data, rows),
    ]
    title = "Inside this run" if data.is_run else "Inside the best trial"
    drawn = [figure for figure in figures if figure is not None]
    return Section(title, drawn, width="half") if drawn else None


def _recorded(rows: pd.DataFrame, column: str) -> bool:
    return column in rows and bool(rows[column].notna().any())


def _over_epochs(
    rows: pd.DataFrame,
    column: str,
    title: str,
    unit: str,
    caption: str = "",
    *,
    highlight_lowest: bool = False,
) -> ReportFigure | None:
    """A value per label over epochs: a line each, or for many labels mean, band and extreme labels.

    Args:
        column: of ``labels.parquet``.
        highlight_lowest: of many labels, draw those with the lowest last value, not with the highest.
    """
    if not _recorded(rows, column):
        return None
    rows = rows[rows[column].notna()]
    by_label = rows.pivot_table(index="epoch", columns="label", values=column, sort=True)
    names = [name for name in dict.fromkeys(rows.label) if name in by_label]
    epochs = by_label.index.tolist()
    figure = go.Figure()
    if len(names) > MOST_LABELS:
        upper, lower = by_label.quantile(0.9, axis=1), by_label.quantile(0.1, axis=1)
        figure.add_scatter(
            x=[*epochs, *epochs[::-1]],
            y=[*upper.tolist(), *lower.tolist()[::-1]],
            fill="toself",
            mode="lines",
            line={"width": 0},
            fillcolor="rgba(143,153,166,0.3)",
            name="10 % to 90 % of labels",
            hoverinfo="skip",
        )
        figure.add_scatter(
            x=epochs,
            y=by_label.mean(axis=1).tolist(),
            name=f"mean of {len(names)} labels",
            mode="lines",
            line={"width": 3.5, "color": "#6b7684"},
        )
        last = by_label.iloc[-1].dropna().sort_values(ascending=highlight_lowest, kind="stable")
        names = list(last.index[:_HIGHLIGHTED])
        extreme = "lowest" if highlight_lowest else "highest"
        caption = f"{caption} Shown by name: the labels with the {extreme} last value.".strip()
    for index, name in enumerate(names):
        figure.add_scatter(
            x=epochs,
            y=[None if v != v else v for v in by_label[name].tolist()],
            name=plotly_text(name),
            mode="lines+markers" if len(epochs) < 3 else "lines",
            line={"width": 2, **series_line(index)},
        )
    epoch_axis(figure, epochs).update_yaxes(title=unit, rangemode="tozero")
    return ReportFigure(column.replace("_", "-"), title, figure, caption)


def _at_best_epoch(data: ReportData, rows: pd.DataFrame) -> list[ReportFigure]:
    """Bars per label at the best epoch: AP, threshold, and number of samples used."""
    best = data.best.best_epoch
    epoch = best if (rows.epoch == best).any() else rows.epoch.max()
    rows = rows[rows.epoch == epoch]
    at = f"epoch {int(epoch)}"
    figures = []
    if _recorded(rows, "val_ap"):
        ordered = rows[rows.val_ap.notna()].sort_values("val_ap", ascending=False)
        title = f"Validation AP per label, {at}"
        figures.append(_bars(ordered, [("val_ap", "AP", BEST)], "val-ap", title, "AP"))
    if _recorded(rows, "threshold"):
        ordered = rows[rows.threshold.notna()].sort_values("threshold", ascending=False)
        figures.append(
            _bars(
                ordered,
                [("threshold", "threshold", BEST)],
                "thresholds",
                f"Thresholds per label, {at}",
                "logit",
                "Tuned on validation data; a score above the threshold is a positive.",
            )
        )
    if _recorded(rows, "n_negative_kept"):
        ordered = rows.sort_values("n_positive", ascending=False)
        columns = [
            ("n_positive", "positives", COLORS[1]),
            ("n_negative_kept", "negatives kept", COLORS[0]),
            ("n_negative", "negative candidates", "#8f99a6"),
        ]
        figures.append(
            _bars(
                ordered,
                columns,
                "negatives-kept",
                f"Samples used per label, {at}",
                "samples",
                "Labelled samples and confident pseudo-labels. Of the negative candidates, those most "
                "similar to the prototype are kept.",
            )
        )
    return figures


def _bars(
    rows: pd.DataFrame,
    columns: list[tuple[str, str, str]],
    name: str,
    title: str,
    unit: str,
    caption: str = "",
) -> ReportFigure:
    """Bars per label.

    Args:
        columns: name in ``rows``, name in the legend, and color of each bar.
    """
    figure = go.Figure()
    labels = [plotly_text(label) for label in rows.label]
    for index, (column, text, color) in enumerate(columns):
        marker = bar_marker(color, index)
        figure.add_bar(x=labels, y=rows[column].tolist(), name=text, marker=marker)
    figure.update_layout(barmode="group", showlegend=len(columns) > 1)
    figure.update_xaxes(type="category", title="label").update_yaxes(title=unit)
    width = 60 + 14 * len(labels) * len(columns) if len(labels) * len(columns) > 24 else 0
    return ReportFigure(name, title, figure, caption, min_width=width)
