"""Pictures of a search: learning curves, all settings at once, the Pareto set, time."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from bbam_ray.report.drawing import (
    BEST,
    COLOURS,
    OTHERS,
    PUBLISHED,
    SCALE,
    Picture,
    epoch_axis,
    plain,
)
from bbam_ray.report.report_data import ReportData, Setting

MOST_CURVES = 40
MOST_LINES = 150
_PHASES = ("refresh", "train", "evaluate")


def learning_curves(data: ReportData) -> Picture | None:
    """The metric over epochs, the best trial on top; of many trials the best and the published one."""
    history, metric = data.history, data.metric
    if history.empty:
        return None
    if metric not in history:
        metric = "val_map"
    best, numbers = data.best, sorted(int(n) for n in history.number.unique())
    note = ""
    if len(numbers) > MOST_CURVES:
        ranked = [n for n in data.trials.number if n != 0][: MOST_CURVES - 1]
        note = f"The {len(ranked)} best of {len(numbers)} trials, and the published settings."
        numbers = [n for n in numbers if n in {0, *ranked}]
    top = None if best is None else int(best.number)
    by_number = dict(iter(history.groupby("number")))
    figure = go.Figure()
    # Last drawn lies on top.
    for number in sorted(numbers, key=lambda n: (n == top, n == 0)):
        rows = by_number[number].sort_values("epoch")
        special = number == top or (number == 0 and not data.is_run)
        marks = ["best"] * (number == top) + ["published"] * (number == 0 and not data.is_run)
        figure.add_scatter(
            x=rows.epoch.tolist(),
            y=rows[metric].tolist(),
            name=f"trial {number}" + (f" ({', '.join(marks)})" if special else ""),
            mode="lines+markers" if len(rows) < 3 else "lines",
            line={
                "width": 3.5 if number == top else 2.5 if special else 1.2,
                "color": BEST if number == top else PUBLISHED if special else OTHERS,
            },
            opacity=1 if special else 0.6,
            showlegend=bool(special),
        )
    mine = history[history.number == top] if top is not None else history
    warm = mine[mine.phase == "warmup"].epoch
    if len(warm) and (mine.phase == "main").any():
        figure.add_vline(
            x=float(warm.max()) + 0.5,
            line_dash="dot",
            annotation_text="main phase",
            annotation_position="bottom right",
        )
    epoch_axis(figure, history.epoch.tolist()).update_yaxes(title=metric)
    return Picture("learning-curves", f"{metric} over epochs", figure, note)


def parallel_settings(data: ReportData) -> Picture | None:
    """A line per complete trial through its settings, coloured by the metric.

    Drawn as plain lines: Plotly's own parallel coordinates need WebGL, which not every browser has.
    """
    settings = [s for s in data.settings if data.complete[f"param_{s.name}"].notna().any()]
    rows = data.complete.head(MOST_LINES)
    if len(settings) < 2 or len(rows) < 2:
        return None
    figure = go.Figure()
    values = rows[data.metric].to_numpy(dtype=float)
    low, high = float(values.min()), float(values.max())
    share = (values - low) / (high - low) if high > low else np.full(len(values), 0.5)
    heights = np.stack([s.unit(rows[f"param_{s.name}"]) for s in settings], axis=1)
    # Equal choices would hide one another; a little apart, by rank, each line can be followed.
    apart = (np.arange(len(rows)) / max(1, len(rows) - 1) - 0.5) * 0.06
    for column, setting in enumerate(settings):
        if setting.choices is not None:
            heights[:, column] += apart
    for place in reversed(range(len(rows))):  # the best last, on top
        texts = [f"{s.name} {s.text(rows[f'param_{s.name}'].iloc[place])}" for s in settings]
        figure.add_scatter(
            x=list(range(len(settings))),
            y=[None if height != height else float(height) for height in heights[place]],
            mode="lines+markers",
            name=f"trial {rows.number.iloc[place]}",
            text=[plain(text) for text in texts],
            hovertemplate=f"trial {rows.number.iloc[place]}, {values[place]:.4f}<br>%{{text}}"
            "<extra></extra>",
            line={
                "color": sample_colorscale(SCALE, float(share[place]))[0],
                "width": 3.5 if place == 0 else 1.3,
            },
            marker={"size": 7 if place == 0 else 4},
            opacity=1 if place == 0 else 0.75,
            showlegend=False,
        )
    _ends(figure, settings)
    figure.add_scatter(
        x=[None],
        y=[None],
        mode="markers",
        showlegend=False,
        marker={"color": [low], "cmin": low, "cmax": high, "colorscale": SCALE, "showscale": True}
        | {"colorbar": {"thickness": 10, "title": {"text": data.metric, "side": "right"}}},
    )
    figure.update_xaxes(showgrid=False, showticklabels=False, range=[-0.4, len(settings) - 0.6])
    figure.update_yaxes(showgrid=False, showticklabels=False, range=[-0.13, 1.22])
    left_out = len(data.complete) - len(rows)
    note = "Thick: the best trial. A gap: a setting that was not in use."
    note += f" The {len(rows)} best; {left_out} others are left out." if left_out else ""
    return Picture(
        "parallel-settings",
        "Settings of each trial",
        figure,
        note,
        height=380,
        min_width=100 + 85 * len(settings),
    )


def _ends(figure: go.Figure, settings: list[Setting]) -> None:
    """An axis per setting, with its name and the values at its ends or its choices."""
    for place, setting in enumerate(settings):
        figure.add_shape(type="line", x0=place, x1=place, y0=0, y1=1, line={"width": 1})
        labels = [(1.12 + 0.07 * (place % 2), f"<b>{plain(setting.name)}</b>", 0)]
        if setting.choices is not None:
            last = max(1, len(setting.choices) - 1)
            labels += [(i / last, plain(c), 1) for i, c in enumerate(setting.choices)]
        elif setting.low is not None and setting.high is not None:
            labels += [(-0.09, f"{setting.low:g}", 0), (1.06, f"{setting.high:g}", 0)]
        for height, text, beside in labels:
            figure.add_annotation(
                x=place,
                y=height,
                text=text,
                showarrow=False,
                xanchor="left" if beside else "center",
                xshift=6 * beside,
                font={"size": 11},
            )


def pareto_front(data: ReportData) -> Picture | None:
    """The first two objectives of all complete trials, and the trials that none of them beats."""
    if "pareto" not in data.trials or not data.trials.pareto.notna().any():
        return None
    names = [data.metric, data.space["also"][0][0]]
    complete = data.complete
    on_front = complete.pareto.fillna(False).astype(bool)
    figure = go.Figure()
    for title, rows, colour in (
        ("others", complete[~on_front], OTHERS),
        ("Pareto set", complete[on_front].sort_values(names[1]), BEST),
    ):
        figure.add_scatter(
            x=rows[names[1]].tolist(),
            y=rows[names[0]].tolist(),
            text=[f"trial {number}" for number in rows.number],
            mode="markers" if title == "others" else "lines+markers",
            marker={"size": 9},
            line={"color": colour},
            name=title,
        )
    figure.update_xaxes(title=names[1]).update_yaxes(title=names[0])
    return Picture("pareto", "Objectives against each other", figure)


def time_by_phase(data: ReportData) -> list[Picture]:
    """Seconds of an epoch in refresh, training and evaluation: by trial, and by epoch of the best one."""
    history = data.history
    columns = [f"seconds_{phase}" for phase in _PHASES]
    if history.empty or not set(columns) <= set(history) or history[columns].isna().all(axis=None):
        return []
    means = history.groupby("number")[columns].mean()
    found = []
    if len(means) > 1:
        figure = _stacked([str(n) for n in means.index], means, "trial")
        found.append(Picture("time-by-trial", "Seconds per epoch, mean of each trial", figure))
    if data.best is not None:
        mine = history[history.number == data.best.number].sort_values("epoch")
        figure = _stacked(mine.epoch.tolist(), mine, "epoch")
        name = "this run" if data.is_run else f"trial {data.best.number}, the best"
        found.append(Picture("time-by-epoch", f"Seconds of each epoch, {name}", figure))
    return found


def _stacked(places: list[object], rows: pd.DataFrame, axis: str) -> go.Figure:
    figure = go.Figure()
    for phase, colour in zip(_PHASES, COLOURS, strict=False):
        seconds = rows[f"seconds_{phase}"].tolist()
        figure.add_bar(x=places, y=seconds, name=phase, marker={"color": colour})
    figure.update_layout(barmode="stack")
    return figure.update_xaxes(title=axis, type="category").update_yaxes(title="seconds")


def spent(data: ReportData) -> list[str]:
    """Sentences on time, GPU-hours and money of trials and confirmation."""
    trained = data.trials.duration_s.dropna()
    if trained.empty:
        return []
    lines = [f"Trials took {trained.sum():.0f} s in all, {trained.median():.1f} s each (median)."]
    rows = [data.trials, data.study.confirm]
    for column, text in (("gpu_hours", "{:.2f} GPU-hours"), ("cost", "cost {:.2f}")):
        total = sum(float(t[column].sum()) for t in rows if column in t)
        if total > 0:
            lines.append(f"With confirmation: {text.format(total)}.")
    return lines
