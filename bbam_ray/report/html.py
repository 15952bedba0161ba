"""``report.html``: one offline page about a study, and the pictures that are on it."""

from __future__ import annotations

from html import escape
from pathlib import Path

from plotly.offline import get_plotlyjs

from bbam_ray.files import write_text
from bbam_ray.report.answer import answer_html
from bbam_ray.report.drawing import Group, Picture, group_html
from bbam_ray.report.importance import importance_group
from bbam_ray.report.method_figures import method_group
from bbam_ray.report.page import check_replaceable, page
from bbam_ray.report.report_data import ReportData
from bbam_ray.report.reproduce import reproduce_html
from bbam_ray.report.search_figures import (
    learning_curves,
    parallel_settings,
    pareto_front,
    spent,
    time_by_phase,
)
from bbam_ray.report.space_figures import scale_and_margin, slices
from bbam_ray.report.trials_table import trials_html


def write_report(folder: Path, copy: Path | None = None) -> Path:
    """Write ``report.html`` into a study's folder and return its path.

    Args:
        copy: where to write the page as well.

    Raises:
        UsageError: no study there, one without an ended trial, one of a newer version of this program,
            or a file at ``copy`` that is no page made here.
    """
    data = ReportData(folder)
    if copy is not None:
        check_replaceable(copy)
    whole = report_html(data, groups(data))
    path = folder / "report.html"
    for place in (path, copy):
        if place is not None:
            write_text(place, whole)
    return path


def groups(data: ReportData) -> list[Group]:
    """The sections of pictures, in the order of the page; empty ones are left out."""
    found = [
        _single("Learning curves", learning_curves(data)),
        importance_group(data),
        slices(data),
        _single("Scale and margin together", scale_and_margin(data)),
        _single("All settings at once", parallel_settings(data)),
        _single("Pareto set", pareto_front(data)),
        method_group(data),
        Group("Time", time_by_phase(data), spent(data), "half"),
    ]
    return [g for g in found if g is not None and (g.pictures or g.notes)]


def _single(title: str, picture: Picture | None) -> Group | None:
    return None if picture is None else Group(title, [picture])


def report_html(data: ReportData, sections: list[Group]) -> str:
    """The whole page, with Plotly's library inside, once."""
    record = data.record
    title = f"{record['study']}: {record['dataset']}, {record['method']}"
    parts = [f"<h1>{escape(title)}</h1>", answer_html(data), trials_html(data)]
    parts += map(group_html, sections)
    parts.append(reproduce_html(data))
    return page(record["study"], "".join(parts), plotly_script())


def plotly_script() -> str:
    """Plotly's library as an inline script."""
    return f"<script>{get_plotlyjs()}</script>"
