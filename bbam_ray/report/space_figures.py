"""Figures of the search space: one setting at a time, and scale against margin."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from bbam_ray.report.figures import (
    BEST,
    COLOR_SCALE,
    OTHERS,
    PUBLISHED,
    ReportFigure,
    Section,
    log_ticks,
    plotly_text,
)
from bbam_ray.report.report_data import ReportData, SearchedSetting

FEWEST_FOR_SURFACE = 8


def bound_notes(data: ReportData) -> list[str]:
    """A sentence for each setting whose best value is at a bound of its range."""
    if data.best is None:
        return []
    notes = []
    for setting in data.settings:
        value = data.best[f"param_{setting.name}"]
        bound = setting.bound(value)
        if bound is not None:
            notes.append(
                f"{setting.name} = {setting.text(value)} is at its {bound} bound: widen its range, if "
                "the setting allows it."
            )
    return notes


def settings_section(data: ReportData) -> Section | None:
    """The metric against each setting, with the best and the published trial marked."""
    if not data.settings or data.best is None:
        return None
    figures = [f for s in data.settings if (f := _slice(data, s)) is not None]
    return Section("Settings one by one", figures, bound_notes(data), "third")


def _slice(data: ReportData, setting: SearchedSetting) -> ReportFigure | None:
    column = f"param_{setting.name}"
    rows = data.complete[data.complete[column].notna()]
    if rows.empty:
        return None
    best = data.best.number
    # The marked trials last, so that they are on top.
    marks = (
        ("trial", rows[~rows.number.isin([0, best])], OTHERS, "circle", 7),
        ("published", rows[(rows.number == 0) & (best != 0)], PUBLISHED, "diamond", 11),
        ("best", rows[rows.number == best], BEST, "star", 15),
    )
    figure = go.Figure()
    for name, trials, color, symbol, size in marks:
        figure.add_scatter(
            x=_axis_values(setting, trials[column]),
            y=trials[data.metric].to_numpy(float),
            mode="markers",
            name=name,
            customdata=trials.number.to_numpy(),
            hovertemplate="trial %{customdata}: %{x}, %{y:.4f}<extra></extra>",
            marker={"color": color, "symbol": symbol, "size": size},
            showlegend=False,
        )
    if setting.choices is not None:
        order = [plotly_text(choice) for choice in setting.choices]
        figure.update_xaxes(type="category", categoryorder="array", categoryarray=order)
        figure.update_xaxes(range=[-0.5, len(order) - 0.5])
    elif setting.log:
        figure.update_xaxes(type="log", **_ticks(setting))
    if setting.choices is None and setting.low is not None and setting.high is not None:
        figure.update_xaxes(range=_axis_range(setting))
    figure.update_yaxes(title=data.metric)
    bound = setting.bound(data.best[column])
    title = f"{setting.name}: best at its {bound} bound" if bound else setting.name
    name = "".join(c if c.isalnum() or c == "_" else "-" for c in setting.name)
    return ReportFigure(f"slice-{name}", title, figure, height=260)


def _axis_values(setting: SearchedSetting, values: pd.Series) -> list[str] | np.ndarray:
    """Choices as texts, numbers as an array, which takes less space in a page than a list."""
    if setting.choices is None:
        return values.to_numpy(float)
    return [plotly_text(setting.text(value)) for value in values]


def _ticks(setting: SearchedSetting) -> dict[str, Any]:
    if setting.low is None or setting.high is None:
        return {}
    return log_ticks(setting.low, setting.high)


def _axis_range(setting: SearchedSetting) -> list[float]:
    """The searched range with a margin, so that marks at its bounds are visible."""
    assert setting.low is not None and setting.high is not None
    low, high = setting.low, setting.high
    if setting.log:
        low, high = float(np.log10(low)), float(np.log10(high))
    margin = 0.05 * (high - low) or 0.5
    return [low - margin, high + margin]


def scale_and_margin(data: ReportData) -> ReportFigure | None:
    """Trials by scale s and margin m, colored by the metric (the paper's sensitivity figure).

    With 8 trials or more also a surface, by linear interpolation within the convex hull of the trials.
    """
    by_name = {s.name: s for s in data.settings}
    if data.best is None or not {"scale", "margin"} <= by_name.keys():
        return None
    rows = data.complete.dropna(subset=["param_scale", "param_margin"])
    scale, margin = rows.param_scale.to_numpy(float), rows.param_margin.to_numpy(float)
    if len(set(scale)) < 2 or len(set(margin)) < 2:
        return None
    log = by_name["scale"].log
    values = rows[data.metric].to_numpy(float)
    color_range = {"zmin": float(values.min()), "zmax": float(values.max())}
    figure = go.Figure()
    surface = _surface(scale, margin, values, log=log) if len(rows) >= FEWEST_FOR_SURFACE else None
    if surface is not None:
        figure.add_contour(
            **surface,
            colorscale=COLOR_SCALE,
            opacity=0.55,
            line={"width": 0.5},
            connectgaps=False,
            showscale=False,
            hoverinfo="skip",
            **color_range,
        )
    is_best = rows.number == data.best.number
    figure.add_scatter(
        x=scale,
        y=margin,
        mode="markers",
        customdata=rows.number.to_numpy(),
        hovertemplate="trial %{customdata}: %{marker.color:.4f}<br>scale %{x:.3g}, margin %{y:.3g}"
        "<extra></extra>",
        marker={
            "color": values,
            "colorscale": COLOR_SCALE,
            "cmin": color_range["zmin"],
            "cmax": color_range["zmax"],
            "size": [16 if best else 10 for best in is_best],
            "symbol": ["star" if best else "circle" for best in is_best],
            "line": {"width": 1, "color": "#59636f"},
            "colorbar": {"thickness": 10, "title": {"text": data.metric, "side": "right"}},
        },
        showlegend=False,
    )
    figure.update_xaxes(title="scale s", type="log" if log else "linear")
    if log:
        figure.update_xaxes(**_ticks(by_name["scale"]))
    figure.update_yaxes(title="margin m")
    caption = "Star: the best trial. "
    caption += (
        "Surface: linear interpolation between trials, which also differ in their other settings."
        if surface is not None
        else "No surface: too few trials, or all on one line."
    )
    return ReportFigure("scale-margin", "Scale and margin", figure, caption, height=420)


def _surface(
    scale: np.ndarray, margin: np.ndarray, values: np.ndarray, *, log: bool
) -> dict[str, list[Any]] | None:
    """x, y and z of a surface: linear interpolation on a grid of 40 x 40.

    Returns:
        Arguments for Plotly, with z None outside the convex hull of the points; None if all points are on
        one line.
    """
    from scipy.interpolate import griddata  # takes most of a second to load
    from scipy.spatial import QhullError

    x_values = np.log(scale) if log else scale  # the x axis
    x = np.linspace(x_values.min(), x_values.max(), 40)
    y = np.linspace(margin.min(), margin.max(), 40)
    try:
        z = griddata((x_values, margin), values, tuple(np.meshgrid(x, y)), rescale=True)
    except QhullError:  # all points on one line
        return None
    cells = [[float(v) if v == v else None for v in row] for row in z]
    return {"x": (np.exp(x) if log else x).tolist(), "y": y.tolist(), "z": cells}
