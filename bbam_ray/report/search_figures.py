"""Figures of a search: learning curves, parallel coordinates, Pareto front, time."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from bbam_ray.report.figures import (
    BEST,
    COLOR_SCALE,
    COLORS,
    OTHERS,
    PUBLISHED,
    ReportFigure,
    bar_marker,
    epoch_axis,
    plotly_text,
)
from bbam_ray.report.report_data import ReportData, SearchedSetting

MOST_CURVES = 40
MOST_LINES = 150
_PHASES = ("refresh", "train", "evaluate")


def learning_curves(data: ReportData) -> ReportFigure | None:
    """The metric over epochs, the best trial on top; of many trials only the best and the published."""
    history, metric = data.history, data.metric
    if history.empty:
        return None
    if metric not in history:
        metric = "val_map"
    best, numbers = data.best, sorted(int(n) for n in history.number.unique())
    caption = ""
    if len(numbers) > MOST_CURVES:
        ranked = [n for n in data.trials.number if n != 0][: MOST_CURVES - 1]
        caption = f"The {len(ranked)} best of {len(numbers)} trials, and the published settings."
        numbers = [n for n in numbers if n in {0, *ranked}]
    best_number = None if best is None else int(best.number)
    by_number = dict(iter(history.groupby("number")))
    figure = go.Figure()
    # The last curve is on top.
    for number in sorted(numbers, key=lambda n: (n == best_number, n == 0)):
        rows = by_number[number].sort_values("epoch")
        is_best, is_published = number == best_number, number == 0 and not data.is_run
        marks = ["best"] * is_best + ["published"] * is_published
        figure.add_scatter(
            x=rows.epoch.tolist(),
            y=rows[metric].tolist(),
            name=f"trial {number}" + (f" ({', '.join(marks)})" if marks else ""),
            mode="lines+markers" if len(rows) < 3 else "lines",
            line={
                "width": 3.5 if is_best else 2.5 if is_published else 1.2,
                "color": BEST if is_best else PUBLISHED if is_published else OTHERS,
                "dash": "dash" if is_published and not is_best else "solid",
            },
            opacity=1 if marks else 0.6,
            showlegend=bool(marks),
        )
    rows = history if best is None else history[history.number == best_number]
    warmup = rows[rows.phase == "warmup"].epoch
    if len(warmup) and (rows.phase == "main").any():
        figure.add_vline(
            x=float(warmup.max()) + 0.5,
            line_dash="dot",
            annotation_text="main phase",
            annotation_position="bottom right",
        )
    epoch_axis(figure, history.epoch.tolist()).update_yaxes(title=metric)
    return ReportFigure("learning-curves", f"{metric} over epochs", figure, caption)


def parallel_coordinates(data: ReportData) -> ReportFigure | None:
    """Parallel coordinates: a line per complete trial through its settings, colored by the metric.

    Drawn as ordinary lines, because Plotly's own parallel coordinates need WebGL.
    """
    settings = [s for s in data.settings if data.complete[f"param_{s.name}"].notna().any()]
    rows = data.complete.head(MOST_LINES)
    if len(settings) < 2 or len(rows) < 2:
        return None
    figure = go.Figure()
    values = rows[data.metric].to_numpy(dtype=float)
    low, high = float(values.min()), float(values.max())
    colors = (values - low) / (high - low) if high > low else np.full(len(values), 0.5)
    heights = _heights(settings, rows)
    for index in reversed(range(len(rows))):  # the best last, on top
        texts = [f"{s.name} {s.text(rows[f'param_{s.name}'].iloc[index])}" for s in settings]
        figure.add_scatter(
            x=list(range(len(settings))),
            y=[None if height != height else float(height) for height in heights[index]],
            mode="lines+markers",
            name=f"trial {rows.number.iloc[index]}",
            text=[plotly_text(text) for text in texts],
            hovertemplate=f"trial {rows.number.iloc[index]}, {values[index]:.4f}<br>%{{text}}"
            "<extra></extra>",
            line={
                "color": sample_colorscale(COLOR_SCALE, float(colors[index]))[0],
                "width": 3.5 if index == 0 else 1.3,
            },
            marker={"size": 7 if index == 0 else 4},
            opacity=1 if index == 0 else 0.75,
            showlegend=False,
        )
    _add_axes(figure, settings)
    _add_color_bar(figure, low, high, data.metric)
    figure.update_xaxes(showgrid=False, showticklabels=False, range=[-0.4, len(settings) - 0.6])
    figure.update_yaxes(showgrid=False, showticklabels=False, range=[-0.13, 1.22])
    left_out = len(data.complete) - len(rows)
    caption = "Thick: the best trial. A gap: the trial did not use the setting."
    caption += f" The {len(rows)} best trials; {left_out} others are left out." if left_out else ""
    return ReportFigure(
        "parallel-settings",
        "Settings of each trial",
        figure,
        caption,
        height=380,
        min_width=100 + 85 * len(settings),
    )


def _heights(settings: list[SearchedSetting], rows: pd.DataFrame) -> np.ndarray:
    """(trials, settings) positions on the axes; lines with the same choice are slightly apart."""
    heights = np.stack([s.normalized(rows[f"param_{s.name}"]) for s in settings], axis=1)
    shift = (np.arange(len(rows)) / max(1, len(rows) - 1) - 0.5) * 0.06  # by rank
    for column, setting in enumerate(settings):
        if setting.choices is not None:
            heights[:, column] += shift
    return heights


def _add_color_bar(figure: go.Figure, low: float, high: float, title: str) -> None:
    """Draw a color bar; Plotly has it only for markers, so this adds an invisible one."""
    bar = {"thickness": 10, "title": {"text": title, "side": "right"}}
    colors = {"color": [low], "cmin": low, "cmax": high, "colorscale": COLOR_SCALE}
    marker = {**colors, "showscale": True, "colorbar": bar}
    figure.add_scatter(x=[None], y=[None], mode="markers", showlegend=False, marker=marker)


def _add_axes(figure: go.Figure, settings: list[SearchedSetting]) -> None:
    """Draw an axis per setting, with its name, and its bounds or choices."""
    for index, setting in enumerate(settings):
        figure.add_shape(type="line", x0=index, x1=index, y0=0, y1=1, line={"width": 1})
        # height, text, and whether it is a choice (to the right of the axis)
        labels = [(1.12 + 0.07 * (index % 2), f"<b>{plotly_text(setting.name)}</b>", 0)]
        if setting.choices is not None:
            last = max(1, len(setting.choices) - 1)
            labels += [(i / last, plotly_text(c), 1) for i, c in enumerate(setting.choices)]
        elif setting.low is not None and setting.high is not None:
            labels += [(-0.09, f"{setting.low:g}", 0), (1.06, f"{setting.high:g}", 0)]
        for height, text, is_choice in labels:
            figure.add_annotation(
                x=index,
                y=height,
                text=text,
                showarrow=False,
                xanchor="left" if is_choice else "center",
                xshift=6 * is_choice,
                font={"size": 11},
            )


def pareto_front(data: ReportData) -> ReportFigure | None:
    """The first two objectives of all complete trials, with the Pareto front."""
    if "pareto" not in data.trials or not data.trials.pareto.notna().any():
        return None
    names = [data.metric, data.space["also"][0][0]]
    complete = data.complete
    on_front = complete.pareto.fillna(False).astype(bool)
    figure = go.Figure()
    for title, rows, color in (
        ("others", complete[~on_front], OTHERS),
        ("Pareto front", complete[on_front].sort_values(names[1]), BEST),
    ):
        figure.add_scatter(
            x=rows[names[1]].tolist(),
            y=rows[names[0]].tolist(),
            text=[f"trial {number}" for number in rows.number],
            mode="markers" if title == "others" else "lines+markers",
            marker={"size": 9},
            line={"color": color},
            name=title,
        )
    figure.update_xaxes(title=names[1]).update_yaxes(title=names[0])
    return ReportFigure("pareto", "Objectives of all trials", figure)


def time_by_phase(data: ReportData) -> list[ReportFigure]:
    """Seconds per epoch in refresh, training and evaluation: by trial, and by epoch of the best trial."""
    history = data.history
    columns = [f"seconds_{phase}" for phase in _PHASES]
    if history.empty or not set(columns) <= set(history) or history[columns].isna().all(axis=None):
        return []
    means = history.groupby("number")[columns].mean()
    figures = []
    if len(means) > 1:
        figure = _stacked([str(n) for n in means.index], means, "trial")
        figures.append(
            ReportFigure("time-by-trial", "Seconds per epoch, mean over each trial", figure)
        )
    if data.best is not None:
        rows = history[history.number == data.best.number].sort_values("epoch")
        figure = _stacked(rows.epoch.tolist(), rows, "epoch")
        name = "this run" if data.is_run else f"best trial ({data.best.number})"
        figures.append(ReportFigure("time-by-epoch", f"Seconds of each epoch, {name}", figure))
    return figures


def _stacked(labels: list[object], rows: pd.DataFrame, axis: str) -> go.Figure:
    figure = go.Figure()
    for index, (phase, color) in enumerate(zip(_PHASES, COLORS, strict=False)):
        seconds = rows[f"seconds_{phase}"].tolist()
        marker = bar_marker(color, index)
        figure.add_bar(x=labels, y=seconds, name=phase, marker=marker)
    figure.update_layout(barmode="stack")
    return figure.update_xaxes(title=axis, type="category").update_yaxes(title="seconds")


def cost_sentences(data: ReportData) -> list[str]:
    """Sentences on time, GPU-hours and cost of trials and confirmation."""
    seconds = data.trials.duration_s.dropna()
    if seconds.empty:
        return []
    lines = [f"Trials took {seconds.sum():.0f} s in total, {seconds.median():.1f} s each (median)."]
    tables = [data.trials, data.study.confirm]
    for column, text in (("gpu_hours", "{:.2f} GPU-hours"), ("cost", "cost {:.2f}")):
        total = sum(float(t[column].sum()) for t in tables if column in t)
        if total > 0:
            lines.append(f"Including confirmation: {text.format(total)}.")
    return lines
