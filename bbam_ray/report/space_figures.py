"""Pictures of the search space: one setting at a time, and scale against margin."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go

from bbam_ray.report.drawing import (
    BEST,
    OTHERS,
    PUBLISHED,
    SCALE,
    Group,
    Picture,
    log_ticks,
    plain,
)
from bbam_ray.report.report_data import ReportData, Setting

FEWEST_FOR_SURFACE = 8


def bound_notes(data: ReportData) -> list[str]:
    """A sentence for each setting whose best value lies at an end of its range."""
    if data.best is None:
        return []
    notes = []
    for setting in data.settings:
        value = data.best[f"param_{setting.name}"]
        end = setting.bound(value)
        if end is not None:
            notes.append(
                f"{setting.name} = {setting.text(value)} is at its {end} bound: widen the space, "
                "where the setting allows it."
            )
    return notes


def slices(data: ReportData) -> Group | None:
    """Value of each setting against the metric, with the best and the published trial marked."""
    if not data.settings or data.best is None:
        return None
    pictures = [p for s in data.settings if (p := _slice(data, s)) is not None]
    return Group("Settings one by one", pictures, bound_notes(data), "third")


def _slice(data: ReportData, setting: Setting) -> Picture | None:
    column = f"param_{setting.name}"
    rows = data.complete[data.complete[column].notna()]
    if rows.empty:
        return None
    top = data.best.number
    # In three steps, so that the marked trials lie on top.
    marks = (
        ("trial", rows[~rows.number.isin([0, top])], OTHERS, "circle", 7),
        ("published", rows[(rows.number == 0) & (top != 0)], PUBLISHED, "diamond", 11),
        ("best", rows[rows.number == top], BEST, "star", 15),
    )
    figure = go.Figure()
    for name, some, colour, symbol, size in marks:
        values = [setting.text(v) if setting.choices else v for v in some[column].tolist()]
        figure.add_scatter(
            x=[plain(v) if isinstance(v, str) else v for v in values],
            y=some[data.metric].tolist(),
            mode="markers",
            name=name,
            text=[f"trial {number}" for number in some.number],
            hovertemplate="%{text}: %{x}, %{y:.4f}<extra></extra>",
            marker={"color": colour, "symbol": symbol, "size": size},
            showlegend=False,
        )
    if setting.choices is not None:
        order = [plain(choice) for choice in setting.choices]
        figure.update_xaxes(type="category", categoryorder="array", categoryarray=order)
        figure.update_xaxes(range=[-0.5, len(order) - 0.5])
    elif setting.log:
        figure.update_xaxes(type="log", **_ticks(setting))
    if setting.choices is None and setting.low is not None and setting.high is not None:
        figure.update_xaxes(range=_room(setting))
    figure.update_yaxes(title=data.metric)
    end = setting.bound(data.best[column])
    title = f"{setting.name}: best at its {end} bound" if end else setting.name
    name = "".join(c if c.isalnum() or c == "_" else "-" for c in setting.name)
    return Picture(f"slice-{name}", title, figure, height=260)


def _ticks(setting: Setting) -> dict[str, Any]:
    if setting.low is None or setting.high is None:
        return {}
    return log_ticks(setting.low, setting.high)


def _room(setting: Setting) -> list[float]:
    """The range of the axis: the searched one, with room for marks at its ends."""
    assert setting.low is not None and setting.high is not None
    low, high = setting.low, setting.high
    if setting.log:
        low, high = float(np.log10(low)), float(np.log10(high))
    edge = 0.05 * (high - low) or 0.5
    return [low - edge, high + edge]


def scale_and_margin(data: ReportData) -> Picture | None:
    """Trials by scale s and margin m, coloured by the metric (the paper's sensitivity figure).

    With 8 trials or more, a surface between them by linear interpolation, which ends at the outermost.
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
    limits = {"zmin": float(values.min()), "zmax": float(values.max())}
    figure = go.Figure()
    surface = _surface(scale, margin, values, log=log) if len(rows) >= FEWEST_FOR_SURFACE else None
    if surface is not None:
        x, y, z = surface
        figure.add_contour(
            x=x,
            y=y,
            z=z,
            colorscale=SCALE,
            opacity=0.55,
            line={"width": 0.5},
            connectgaps=False,
            showscale=False,
            hoverinfo="skip",
            **limits,
        )
    top = rows.number == data.best.number
    figure.add_scatter(
        x=scale.tolist(),
        y=margin.tolist(),
        mode="markers",
        text=[f"trial {n}: {v:.4f}" for n, v in zip(rows.number, values, strict=True)],
        hovertemplate="%{text}<br>scale %{x:.3g}, margin %{y:.3g}<extra></extra>",
        marker={
            "color": values.tolist(),
            "colorscale": SCALE,
            "cmin": limits["zmin"],
            "cmax": limits["zmax"],
            "size": [16 if best else 10 for best in top],
            "symbol": ["star" if best else "circle" for best in top],
            "line": {"width": 1, "color": "#59636f"},
            "colorbar": {"thickness": 10, "title": {"text": data.metric, "side": "right"}},
        },
        showlegend=False,
    )
    figure.update_xaxes(title="scale s", type="log" if log else "linear")
    if log:
        figure.update_xaxes(**_ticks(by_name["scale"]))
    figure.update_yaxes(title="margin m")
    note = "Star: the best trial. "
    note += (
        "Surface: linear interpolation between trials; other settings differ, too."
        if surface is not None
        else "No surface: too few trials, or they lie on a line."
    )
    return Picture("scale-margin", "Scale and margin", figure, note, height=420)


def _surface(
    scale: np.ndarray, margin: np.ndarray, values: np.ndarray, *, log: bool
) -> tuple[list[float], list[float], list[list[float | None]]] | None:
    """Linear interpolation on a grid of 40 x 40; None outside the outermost points."""
    from scipy.interpolate import griddata  # takes most of a second to load
    from scipy.spatial import QhullError

    across = np.log(scale) if log else scale
    x = np.linspace(across.min(), across.max(), 40)
    y = np.linspace(margin.min(), margin.max(), 40)
    try:
        z = griddata((across, margin), values, tuple(np.meshgrid(x, y)), rescale=True)
    except QhullError:  # all on a line
        return None
    cells = [[float(v) if v == v else None for v in row] for row in z]
    return (np.exp(x) if log else x).tolist(), y.tolist(), cells
