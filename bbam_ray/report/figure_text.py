"""What a figure shows, in a sentence for readers who cannot see it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import unescape
from typing import Any

import plotly.graph_objects as go

_MOST_SERIES = 6


def description(title: str, figure: go.Figure) -> str:
    """The title, the axes, and the range of each named series.

    Args:
        title: of the figure, plain text.
        figure: of Plotly; its texts are escaped as ``plotly_text`` does.

    Returns:
        Plain text, for example "val_map over epochs. Horizontal: epoch; vertical: val_map. Series: trial 0
        (published), 13 values from 0.31 to 0.8; trial 3 (best), 13 values from 0.3 to 0.82."
    """
    parts = [f"{title}."]
    axes = (("horizontal", figure.layout.xaxis), ("vertical", figure.layout.yaxis))
    named = [f"{where}: {axis.title.text}" for where, axis in axes if axis.title.text]
    if named:
        text = "; ".join(named)
        parts.append(f"{text[0].upper()}{text[1:]}.")
    series = list(_series(figure))
    if series:
        more = len(series) - _MOST_SERIES
        shortened = series[:_MOST_SERIES] + ([f"{more} more"] if more > 0 else [])
        parts.append(f"Series: {'; '.join(shortened)}.")
    return unescape(" ".join(parts))


def _series(figure: go.Figure) -> Iterator[str]:
    """A text for each series with numbers; those in the legend come first."""
    traces = [trace for trace in figure.data if trace.type in ("scatter", "bar")]
    for trace in sorted(traces, key=lambda each: each.showlegend is False):
        values = _numbers(trace.x if getattr(trace, "orientation", None) == "h" else trace.y)
        if not values:
            continue
        name = f"{trace.name}, " if trace.name else ""
        low, high = min(values), max(values)
        if len(values) == 1:
            yield f"{name}1 value, {low:.4g}"
        else:
            yield f"{name}{len(values)} values from {low:.4g} to {high:.4g}"


def _numbers(values: Sequence[Any] | None) -> list[float]:
    """The numbers of a series; empty if it consists of texts."""
    if values is None:
        return []
    known = [value for value in values if value is not None and value == value]
    return [] if any(isinstance(value, str) for value in known) else [float(v) for v in known]
