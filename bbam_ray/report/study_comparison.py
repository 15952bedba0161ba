"""A page that compares several studies."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bbam_ray.report.comparison_figures import (
    best_learning_curves,
    best_so_far,
    confirmed_test_map,
    test_map_of,
)
from bbam_ray.report.figures import ReportFigure, Section
from bbam_ray.report.overview import interval_text
from bbam_ray.report.page import render_page
from bbam_ray.report.report_data import ReportData
from bbam_ray.report.study_report import report_sections
from bbam_ray.report.tables import Table, number_text

PAGE = "comparison.html"
_COLUMNS = (
    *("study", "method", "labelled", "status", "trials", "metric", "best validation"),
    *("published", "test mAP [95 %]", "seeds", "minutes", "GPU-hours"),
)


@dataclass(frozen=True)
class DatasetComparison:
    """The studies on one data set, as ``study_comparison.html.j2`` shows them."""

    name: str
    table: Table
    sections: Sequence[Section]


def default_page(folders: Sequence[Path]) -> Path:
    """``comparison.html`` in the deepest folder that contains all studies."""
    parents = [folder.resolve().parent for folder in folders]
    return Path(os.path.commonpath(parents)) / PAGE


def by_dataset(reports: Sequence[ReportData]) -> dict[str, list[ReportData]]:
    """Studies grouped by data set, in the given order."""
    groups: dict[str, list[ReportData]] = {}
    for data in reports:
        groups.setdefault(str(data.record["dataset"]), []).append(data)
    return groups


def studies_html(reports: Sequence[ReportData], command: str) -> str:
    """The page: for each data set a table of results, then figures.

    Args:
        command: that makes this page.
    """
    groups = by_dataset(reports)
    datasets = [
        DatasetComparison(
            name, _table(studies), comparison_sections(name, studies, alone=len(groups) == 1)
        )
        for name, studies in groups.items()
    ]
    return render_page(
        "study_comparison.html.j2",
        title=f"{len(reports)} studies",
        heading=f"{len(reports)} studies: {', '.join(groups)}",
        datasets=datasets,
        command=command,
    )


def comparison_sections(
    dataset: str, reports: Sequence[ReportData], *, alone: bool
) -> list[Section]:
    """The figures that compare the studies on one data set.

    Args:
        alone: the page has no other data set, so names and titles do not repeat this one.
    """
    suffix = "" if alone else f", {dataset}"
    prefix = "" if alone else f"{file_part(dataset)}-"
    names = _study_names(reports)
    figures = (
        confirmed_test_map(f"{prefix}confirmed", reports, names),
        best_so_far(f"{prefix}best-so-far", reports, names),
        best_learning_curves(f"{prefix}best-curves", reports, names),
    )
    return [Section(f"{f.title}{suffix}", [f]) for f in figures if f is not None]


def named_figures(reports: Sequence[ReportData]) -> dict[str, ReportFigure]:
    """All figures of one or several studies by file name, without suffix.

    Names of several studies start with data set and study; figures that compare them are included.
    """
    several = len(reports) > 1
    figures: dict[str, ReportFigure] = {}
    for data in reports:
        prefix = f"{file_part(str(data.record['dataset']))}-{data.folder.name}-" if several else ""
        figures |= {f"{prefix}{f.name}": f for f in _figures(report_sections(data))}
    groups = by_dataset(reports) if several else {}
    for dataset, studies in groups.items():
        sections = comparison_sections(dataset, studies, alone=len(groups) == 1)
        figures |= {f"comparison-{f.name}": f for f in _figures(sections)}
    return figures


def _figures(sections: Sequence[Section]) -> Iterator[ReportFigure]:
    return (figure for section in sections for figure in section.figures)


def file_part(text: str) -> str:
    """A text as a part of a file's name."""
    return "".join(c if c.isalnum() or c in "._" else "-" for c in text)


def _study_names(reports: Sequence[ReportData]) -> list[str]:
    """The studies' names; their paths where two have the same name."""
    names = [str(data.record["study"]) for data in reports]
    duplicates = {name for name in names if names.count(name) > 1}
    return [
        str(data.folder.resolve()) if name in duplicates else name
        for name, data in zip(names, reports, strict=True)
    ]


def _table(reports: Sequence[ReportData]) -> Table:
    rows = [_row(name, data) for name, data in zip(_study_names(reports), reports, strict=True)]
    return Table("Studies", _COLUMNS, rows)


def _row(name: str, data: ReportData) -> list[str]:
    record, metric, best = data.record, data.metric, data.best
    published, test_map = data.published, test_map_of(data)
    fraction = data.best_setting("labeled_fraction")
    fraction = fraction or (record.get("pace") or {}).get("labeled_fraction")
    confirm = data.study.confirm
    gpu_hours = data.trials.gpu_hours.sum() + (confirm.gpu_hours.sum() if len(confirm) else 0)
    return [
        name,
        str(record["method"]),
        "" if fraction is None else f"{float(fraction):.0%}",
        str(record["status"]).lower(),
        f"{len(data.complete)} of {len(data.trials)}",
        metric,
        "" if best is None else f"{best[metric]:.4f}",
        "" if published is None else number_text(float(published[metric])),
        "not confirmed" if test_map is None else interval_text(test_map),
        "" if test_map is None else str(test_map.seeds),
        f"{data.trials.duration_s.sum() / 60:.1f}",
        f"{gpu_hours:.2f}" if gpu_hours else "",
    ]
