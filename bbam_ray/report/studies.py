"""A page about several studies side by side."""

from __future__ import annotations

import os
from collections.abc import Sequence
from html import escape
from pathlib import Path

import plotly.graph_objects as go

from bbam_ray.report.answer import interval_text
from bbam_ray.report.drawing import (
    BEST,
    COLOURS,
    Group,
    Picture,
    epoch_axis,
    group_html,
    number_text,
    plain,
    table_html,
)
from bbam_ray.report.html import plotly_script
from bbam_ray.report.page import page
from bbam_ray.report.report_data import ReportData
from bbam_ray.results.summary import Confirmed, confirmed_metrics

PAGE = "comparison.html"


def default_page(folders: Sequence[Path]) -> Path:
    """``comparison.html`` in the deepest folder that all studies lie in."""
    parents = [folder.resolve().parent for folder in folders]
    return Path(os.path.commonpath(parents)) / PAGE


def by_data_set(reports: Sequence[ReportData]) -> dict[str, list[ReportData]]:
    """Studies by data set, both in the order given."""
    found: dict[str, list[ReportData]] = {}
    for data in reports:
        found.setdefault(str(data.record["dataset"]), []).append(data)
    return found


def studies_html(reports: Sequence[ReportData], command: str) -> str:
    """The page: for each data set a table of answers, then curves and confirmed figures."""
    sets = by_data_set(reports)
    names = ", ".join(sets)
    parts = [f"<h1>{len(reports)} studies: {escape(names)}</h1>"]
    if len(sets) > 1:
        parts.append(
            '<p class="answer">The studies are on different data sets: '
            f"{escape(names)}. Figures can be compared within a data set only, so each has its own "
            "section.</p>"
        )
    for dataset, mine in sets.items():
        parts.append(f"<section><h2>{escape(dataset)}</h2>{_table(mine)}</section>")
        parts += map(group_html, groups(dataset, mine, alone=len(sets) == 1))
    parts.append(f"<section><h2>Made by</h2><pre>{escape(command)}</pre></section>")
    return page(f"{len(reports)} studies", "".join(parts), plotly_script())


def groups(dataset: str, reports: Sequence[ReportData], *, alone: bool) -> list[Group]:
    """The pictures of the studies on one data set.

    Args:
        alone: there is no other data set on the page.
    """
    end = "" if alone else f", {dataset}"
    prefix = "" if alone else f"{file_part(dataset)}-"
    names = _names(reports)
    found = []
    for name, title, picture in (
        ("confirmed", "Confirmed test mAP", _confirmed(reports, names)),
        ("best-so-far", "Best so far over the search", _best_so_far(reports, names)),
        ("best-curves", "Learning curves of the best trials", _best_curves(reports, names)),
    ):
        if picture is not None:
            figure, note, height = picture
            drawn = Picture(f"{prefix}{name}", title, figure, note, height)
            found.append(Group(f"{title}{end}", [drawn]))
    return found


def file_part(text: str) -> str:
    """A text as a part of a file's name."""
    return "".join(c if c.isalnum() or c in "._" else "-" for c in text)


def _names(reports: Sequence[ReportData]) -> list[str]:
    """The studies' names, with the folder above where two have the same one."""
    names = [str(m.record["study"]) for m in reports]
    doubled = {name for name in names if names.count(name) > 1}
    return [
        str(m.folder.resolve()) if name in doubled else name
        for name, m in zip(names, reports, strict=True)
    ]


def _winner(data: ReportData) -> Confirmed | None:
    """The confirmed test mAP of the best configuration, if it was confirmed."""
    figures = confirmed_metrics(data.confirm)
    return next((f for f in figures if f.rank == 1), None)


def _table(reports: Sequence[ReportData]) -> str:
    heads = ["study", "method", "labelled", "status", "trials", "metric", "best validation"]
    heads += ["published", "test mAP [95 %]", "seeds", "minutes", "GPU-hours"]
    rows = []
    for name, data in zip(_names(reports), reports, strict=True):
        record, metric, best = data.record, data.metric, data.best
        first, winner = data.published, _winner(data)
        share = data.chosen("labeled_fraction") or (record.get("pace") or {}).get(
            "labeled_fraction"
        )
        seconds = data.trials.duration_s.sum()
        gpu = data.trials.gpu_hours.sum() + (
            data.study.confirm.gpu_hours.sum() if len(data.study.confirm) else 0
        )
        rows.append(
            [
                name,
                str(record["method"]),
                "" if share is None else f"{float(share):.0%}",
                str(record["status"]).lower(),
                f"{len(data.complete)} of {len(data.trials)}",
                metric,
                "" if best is None else f"{best[metric]:.4f}",
                "" if first is None else number_text(float(first[metric])),
                "not confirmed" if winner is None else interval_text(winner),
                "" if winner is None else str(winner.seeds),
                f"{seconds / 60:.1f}",
                f"{gpu:.2f}" if gpu else "",
            ]
        )
    note = (
        '<p class="note">Trials: complete ones of those that have ended. Minutes: of all trials. Test '
        "mAP: mean over seeds [95 % interval of the mean].</p>"
    )
    return table_html(heads, rows, "Studies") + note


def _confirmed(
    reports: Sequence[ReportData], names: Sequence[str]
) -> tuple[go.Figure, str, int] | None:
    rows = [(n, w) for n, m in zip(names, reports, strict=True) if (w := _winner(m)) is not None]
    if not rows:
        return None
    rows = rows[::-1]  # Plotly draws from the bottom up
    half = [w.interval[1] - w.mean if w.interval else 0.0 for _, w in rows]
    figure = go.Figure(
        go.Scatter(
            x=[w.mean for _, w in rows],
            y=[plain(name) for name, _ in rows],
            mode="markers",
            marker={"size": 11, "color": BEST},
            error_x={"type": "data", "array": half, "thickness": 2, "color": BEST},
            text=[interval_text(w) for _, w in rows],
            hovertemplate="%{y}: %{text}<extra></extra>",
        )
    )
    figure.update_xaxes(title="test mAP").update_yaxes(type="category")
    single = any(w.interval is None for _, w in rows)
    note = "Mean over seeds, with the 95 % interval of the mean"
    note += " (none for a single seed)." if single else "."
    return figure, note, 130 + 36 * len(rows)


def _best_so_far(
    reports: Sequence[ReportData], names: Sequence[str]
) -> tuple[go.Figure, str, int] | None:
    figure = go.Figure()
    for place, (name, data) in enumerate(zip(names, reports, strict=True)):
        rows = data.complete.sort_values("number")
        if len(rows) < 2:
            continue
        values = rows[data.metric]
        best = values.cummax() if data.highest_is_best else values.cummin()
        figure.add_scatter(
            x=(rows.number + 1).tolist(),
            y=best.tolist(),
            name=plain(name),
            line={"shape": "hv", "color": COLOURS[place % len(COLOURS)], "width": 2.5},
        )
    metric = " / ".join(dict.fromkeys(m.metric for m in reports))
    figure.update_xaxes(title="trials").update_yaxes(title=f"best {metric}")
    return (figure, "On validation data, in the order of trials.", 360) if figure.data else None


def _best_curves(
    reports: Sequence[ReportData], names: Sequence[str]
) -> tuple[go.Figure, str, int] | None:
    figure = go.Figure()
    for place, (name, data) in enumerate(zip(names, reports, strict=True)):
        history = data.history
        if data.best is None or history.empty or data.metric not in history:
            continue
        rows = history[history.number == data.best.number].sort_values("epoch")
        figure.add_scatter(
            x=rows.epoch.tolist(),
            y=rows[data.metric].tolist(),
            name=plain(name),
            mode="lines+markers" if len(rows) < 3 else "lines",
            line={"color": COLOURS[place % len(COLOURS)], "width": 2.5},
        )
    metric = " / ".join(dict.fromkeys(m.metric for m in reports))
    if not figure.data:
        return None
    epoch_axis(figure, [e for line in figure.data for e in line.x]).update_yaxes(title=metric)
    return figure, "", 360
