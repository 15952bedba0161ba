"""``report.html``: an offline page about one study, with all its figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bbam_ray.files import write_text
from bbam_ray.report.figures import ReportFigure, Section
from bbam_ray.report.importance import importance_section
from bbam_ray.report.method_figures import method_section
from bbam_ray.report.next_steps import NextSteps, next_steps
from bbam_ray.report.overview import Overview, overview
from bbam_ray.report.page import check_replaceable, render_page
from bbam_ray.report.report_data import ReportData
from bbam_ray.report.reproduce import Reproduction, reproduction
from bbam_ray.report.search_figures import (
    cost_sentences,
    learning_curves,
    parallel_coordinates,
    pareto_front,
    time_by_phase,
)
from bbam_ray.report.space_figures import scale_and_margin, settings_section
from bbam_ray.report.trial_figures import trial_values
from bbam_ray.report.trials_table import TrialsTable, trials_table
from bbam_ray.report.verdict import Verdict, verdict


@dataclass(frozen=True)
class Report:
    """What ``_report.html.j2`` shows: a report in the order of the page."""

    heading: str
    verdict: Verdict
    next: NextSteps
    overview: Overview
    trials: TrialsTable
    sections: Sequence[Section]
    reproduction: Reproduction

    @property
    def section_titles(self) -> list[str]:
        """The titles of all sections after the first screen, in the order of the page."""
        titles = (section.title for section in self.sections)
        return ["Result", "Trials", *titles, "How to reproduce it"]


def write_report(folder: Path, copy: Path | None = None) -> Path:
    """Write ``report.html`` into a study's folder and return its path.

    Args:
        copy: a second path for the same page.

    Raises:
        UsageError: the folder holds no study, no trial of it has ended, a newer version of this program
            wrote it, or ``copy`` is a file that bbam-ray did not write.
    """
    data = ReportData(folder)
    if copy is not None:
        check_replaceable(copy)
    html = render_page(
        "study_report.html.j2", title=data.record["study"], report=study_report(data)
    )
    path = folder / "report.html"
    for target in (path, copy):
        if target is not None:
            write_text(target, html)
    return path


def study_report(data: ReportData) -> Report:
    """Collect what a report shows."""
    return Report(
        heading=study_heading(data.record),
        verdict=verdict(data),
        next=next_steps(data),
        overview=overview(data),
        trials=trials_table(data),
        sections=report_sections(data),
        reproduction=reproduction(data),
    )


def study_heading(record: dict[str, object]) -> str:
    """ "<study>: <data set>, <method>"."""
    return f"{record['study']}: {record['dataset']}, {record['method']}"


def report_sections(data: ReportData) -> list[Section]:
    """The sections with figures, in the order of the page; empty ones are left out."""
    sections = [
        _single("Trials with their standard errors", trial_values(data)),
        _single("Learning curves", learning_curves(data)),
        importance_section(data),
        settings_section(data),
        _single("Scale and margin together", scale_and_margin(data)),
        _single("All settings at once", parallel_coordinates(data)),
        _single("Pareto front", pareto_front(data)),
        method_section(data),
        Section("Time", time_by_phase(data), cost_sentences(data), "half"),
    ]
    return [s for s in sections if s is not None and (s.figures or s.notes)]


def _single(title: str, figure: ReportFigure | None) -> Section | None:
    return None if figure is None else Section(title, [figure])
