"""The method's own pictures, for the best trial: variance bias, pseudo-labels, negatives, AP by label."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from bbam_ray.report.angle_figures import angle_histograms
from bbam_ray.report.drawing import BEST, COLOURS, Group, Picture, epoch_axis, plain
from bbam_ray.report.report_data import ReportData

MOST_LABELS = 15
_MARKED = 5
_HIDDEN_TRUTH = (
    "A diagnostic, by the hidden truth of the unlabelled samples, which training never sees."
)


def method_group(data: ReportData) -> Group | None:
    """All of them; None without a complete trial or rows of its labels."""
    rows = data.best_labels
    if rows.empty:
        return None
    pictures = [
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
            _HIDDEN_TRUTH,
            low=True,
        ),
        _over_epochs(
            rows,
            "pseudo_recall",
            "Recall of pseudo-positives per label",
            "recall",
            _HIDDEN_TRUTH,
            low=True,
        ),
        *_at_best_epoch(data, rows),
    ]
    title = "Inside this run" if data.is_run else "Inside the best trial"
    found = [p for p in pictures if p is not None]
    return Group(title, found, width="half") if found else None


def _known(rows: pd.DataFrame, column: str) -> bool:
    return column in rows and bool(rows[column].notna().any())


def _over_epochs(
    rows: pd.DataFrame, column: str, title: str, unit: str, note: str = "", *, low: bool = False
) -> Picture | None:
    """A figure per label over epochs: a line each, or for many labels mean, band and the extremes.

    Args:
        low: with many labels mark those that end lowest, else those that end highest.
    """
    if not _known(rows, column):
        return None
    known = rows[rows[column].notna()]
    by_label = known.pivot_table(index="epoch", columns="label", values=column, sort=True)
    names = [name for name in dict.fromkeys(known.label) if name in by_label]
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
        last = by_label.iloc[-1].dropna().sort_values(ascending=low, kind="stable")
        names = list(last.index[:_MARKED])
        note = f"{note} Marked: the {'lowest' if low else 'highest'} at the end.".strip()
    for place, name in enumerate(names):
        figure.add_scatter(
            x=epochs,
            y=[None if v != v else v for v in by_label[name].tolist()],
            name=plain(name),
            mode="lines+markers" if len(epochs) < 3 else "lines",
            line={"color": COLOURS[place % len(COLOURS)], "width": 2}
            | {"dash": "solid" if place < len(COLOURS) else "dash"},
        )
    epoch_axis(figure, epochs).update_yaxes(title=unit, rangemode="tozero")
    return Picture(column.replace("_", "-"), title, figure, note)


def _at_best_epoch(data: ReportData, rows: pd.DataFrame) -> list[Picture]:
    """Bars per label, of the best epoch: AP, threshold, and how many samples took part."""
    best = data.best.best_epoch
    epoch = best if (rows.epoch == best).any() else rows.epoch.max()
    mine = rows[rows.epoch == epoch]
    at = f"epoch {int(epoch)}"
    found = []
    if _known(mine, "val_ap"):
        ordered = mine[mine.val_ap.notna()].sort_values("val_ap", ascending=False)
        title = f"Validation AP per label, {at}"
        found.append(_bars(ordered, [("val_ap", "AP", BEST)], "val-ap", title, "AP"))
    if _known(mine, "threshold"):
        ordered = mine[mine.threshold.notna()].sort_values("threshold", ascending=False)
        found.append(
            _bars(
                ordered,
                [("threshold", "threshold", BEST)],
                "thresholds",
                f"Thresholds per label, {at}",
                "logit",
                "Tuned on validation data; a score above it counts as positive.",
            )
        )
    if _known(mine, "n_negative_kept"):
        ordered = mine.sort_values("n_positive", ascending=False)
        columns = [
            ("n_positive", "positives", COLOURS[1]),
            ("n_negative_kept", "negatives kept", COLOURS[0]),
            ("n_negative", "negative candidates", "#8f99a6"),
        ]
        found.append(
            _bars(
                ordered,
                columns,
                "negatives-kept",
                f"Samples that take part per label, {at}",
                "samples",
                "Labelled ones and confident pseudo-labels. Of the negatives those most similar to the "
                "prototype are kept.",
            )
        )
    return found


def _bars(
    rows: pd.DataFrame,
    columns: list[tuple[str, str, str]],
    name: str,
    title: str,
    unit: str,
    note: str = "",
) -> Picture:
    figure = go.Figure()
    labels = [plain(label) for label in rows.label]
    for column, text, colour in columns:
        figure.add_bar(x=labels, y=rows[column].tolist(), name=text, marker={"color": colour})
    figure.update_layout(barmode="group", showlegend=len(columns) > 1)
    figure.update_xaxes(type="category", title="label").update_yaxes(title=unit)
    width = 60 + 14 * len(labels) * len(columns) if len(labels) * len(columns) > 24 else 0
    return Picture(name, title, figure, note, min_width=width)
