"""How figures look, in the page and as files: colours, layout, and the HTML around a figure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from bbam_ray.report.page import wide

# All of medium lightness, so that they can be told from a white and from a dark ground.
BEST, PUBLISHED, OTHERS = "#2f7fd8", "#e0832b", "#8f99a6"
NEGATIVE, POSITIVE = "#2f7fd8", "#e0832b"
COLOURS = (
    *("#2f7fd8", "#e0832b", "#2a9d6f", "#c9507f", "#8a6fd1", "#a68a1f", "#2fa3b5", "#9a6a4b"),
    *("#7fa650", "#d65f5f"),
)
#: low to high
SCALE = [[0.0, "#3f74c0"], [0.5, "#ad68b0"], [1.0, "#f0903c"]]


@dataclass(frozen=True)
class Picture:
    """A figure with what is said about it.

    Args:
        name: of the file it may be written to; unique in a report.
        title, note: plain text.
        height, min_width: pixels; a page narrower than ``min_width`` scrolls the figure in its box.
        choices: text, and changes of data and layout (of Plotly's ``update``), of a chooser above the
            figure.
    """

    name: str
    title: str
    figure: go.Figure
    note: str = ""
    height: int = 360
    min_width: int = 0
    choices: tuple[tuple[str, Sequence[dict[str, Any]]], ...] = ()


@dataclass(frozen=True)
class Group:
    """A section of a report: pictures, and plain sentences before them.

    Args:
        width: of each picture where there is room for several: "full", "half" or "third".
    """

    title: str
    pictures: Sequence[Picture] = ()
    notes: Sequence[str] = ()
    width: str = "full"


def plain(text: object) -> str:
    """Text from outside for a figure: Plotly obeys some HTML tags, links among them."""
    return escape(str(text), quote=False)


def number_text(value: Any) -> str:
    """A value of a table in a few digits; empty where there is none."""
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return ""
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def styled(picture: Picture) -> go.Figure:
    """The figure with the common layout: transparent ground, legend above, room for long ticks."""
    figure = picture.figure
    figure.update_layout(
        template="none",
        colorway=COLOURS,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": "#1c2430", "family": "system-ui, sans-serif", "size": 12},
        margin={"l": 55, "r": 15, "t": 25, "b": 45},
        height=picture.height,
        legend={
            "orientation": "h",
            "x": 0,
            "y": picture.figure.layout.legend.y or 1.02,
            "yanchor": "bottom",
            "traceorder": "normal",
        },
        hovermode="closest",
    )
    axis = {"gridcolor": "#dde2e9", "zeroline": False, "automargin": True}
    return figure.update_xaxes(**axis).update_yaxes(**axis)


def epoch_axis(figure: go.Figure, epochs: Sequence[float]) -> go.Figure:
    """An axis of whole epochs, with a little room before the first and after the last."""
    first, last = min(epochs), max(epochs)
    room = max(0.3, 0.02 * (last - first))
    step = 1 if last - first <= 15 else None
    return figure.update_xaxes(title="epoch", range=[first - room, last + room], dtick=step)


def log_ticks(low: float, high: float) -> dict[str, list[Any]]:
    """Ticks at 1, 2 and 5 times powers of ten (powers alone for wide ranges), as Plotly wants them."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    digits = (1, 2, 5) if len(powers) <= 4 else (1,)
    values = [digit * 10.0**power for power in powers for digit in digits]
    inside = [value for value in values if low * 0.99 <= value <= high * 1.01]
    return {"tickvals": inside, "ticktext": [f"{value:g}" for value in inside]}


def picture_html(picture: Picture, *, headed: bool = True) -> str:
    """A figure with heading, note and chooser; ``plotly.js`` must be on the page."""
    figure = styled(picture)
    chooser, plot = "", f"plot-{picture.name}"
    if picture.choices:
        figure.update_layout(meta=[values for _, values in picture.choices])
        options = "".join(f"<option>{escape(text)}</option>" for text, _ in picture.choices)
        chooser = f'<p><label>Show <select data-plot="{plot}">{options}</select></label></p>'
    drawn = figure.to_html(
        full_html=False,
        include_plotlyjs=False,
        config={"displayModeBar": False, "responsive": True},
        div_id=plot,
        default_height=f"{picture.height}px",
    )
    if picture.min_width:
        drawn = wide(f'<div style="min-width:{picture.min_width}px">{drawn}</div>', picture.title)
    note = f'<p class="note">{escape(picture.note)}</p>' if picture.note else ""
    head = f"<h3>{escape(picture.title)}</h3>" if headed else ""
    return f'<div class="picture">{head}{note}{chooser}{drawn}</div>'


def group_html(group: Group) -> str:
    """A section with its heading; empty for a group without content."""
    if not group.pictures and not group.notes:
        return ""
    notes = "".join(f"<p>{escape(note)}</p>" for note in group.notes)
    headed = len(group.pictures) > 1  # one picture has its section's heading
    drawn = "".join(picture_html(picture, headed=headed) for picture in group.pictures)
    if group.width != "full":
        drawn = f'<div class="grid {group.width}">{drawn}</div>'
    return f"<section><h2>{escape(group.title)}</h2>{notes}{drawn}</section>"


def table_html(heads: Iterable[str], rows: Iterable[Iterable[str]], name: str) -> str:
    """A table of plain texts in its own box.

    Args:
        name: for screen readers.
    """
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    body = ("".join(f"<td>{escape(text)}</td>" for text in row) for row in rows)
    lines = "".join(f"<tr>{cells}</tr>" for cells in body)
    return wide(f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>", name)
