"""HTML reports of studies, a page that compares several, and their figures as files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bbam_ray.commands.listener import SILENT, Listener
from bbam_ray.errors import UsageError
from bbam_ray.files import write_text
from bbam_ray.report.figure_files import check_figures, write_figures
from bbam_ray.report.page import check_replaceable
from bbam_ray.report.report_data import ReportData
from bbam_ray.report.study_comparison import default_page, named_figures, studies_html
from bbam_ray.report.study_report import write_report
from bbam_ray.results.remote import address_of, open_study
from bbam_ray.results.study import command_line


def report(
    folders: Sequence[Path | str],
    *,
    output: Path | str | None = None,
    figures: Path | str | None = None,
    listener: Listener = SILENT,
) -> list[Path]:
    """Write ``report.html`` into each study's folder, and for several a page that compares them.

    Args:
        folders: of the studies, ``<results>/<dataset>/<study>``; any may be a URI.
        output: of one study, a copy of its report; of several, the page that compares them (default:
            ``comparison.html`` in the folder above them).
        figures: folder for the figures as SVG and PDF files.
        listener: receives the path of each file as soon as it is written.

    Returns:
        All files that were written, in that order.

    Raises:
        UsageError: no study, a study without a finished trial, or a file that must not be replaced.
    """
    output = None if output is None else Path(output)
    with _local_studies(folders) as local:
        # All checks come before the first file.
        several = len(local) > 1
        if len({folder.resolve() for folder in local}) < len(local):
            raise UsageError("a study is given twice; give each once")
        reports = [ReportData(folder) for folder in local]
        comparison = output or default_page(local) if several else None
        if comparison is not None:
            check_replaceable(comparison)
        if figures is not None:
            check_figures(Path(figures))
        written: list[Path] = []
        for path in _write(local, reports, output, comparison, figures):
            written.append(path)
            listener.message(str(path))
    return written


@contextmanager
def _local_studies(folders: Sequence[Path | str]) -> Iterator[list[Path]]:
    """The studies on this disk; files that are added to the copy of a remote study are uploaded."""
    with ExitStack() as stack:
        local: list[Path] = []
        for folder in folders:
            uri = address_of(folder)
            if uri is None:
                local.append(Path(folder))
                continue
            storage, copy = open_study(uri)
            stack.enter_context(storage)
            local.append(copy)
        yield local


def _write(
    folders: list[Path],
    reports: list[ReportData],
    output: Path | None,
    comparison: Path | None,
    figures: Path | str | None,
) -> Iterator[Path]:
    """Write everything; yields each path when the file is there."""
    copy = output if comparison is None else None
    for folder in folders:
        yield write_report(folder, copy)
    if copy is not None:
        yield copy
    if comparison is not None:
        write_text(comparison, studies_html(reports, command_line()))
        yield comparison
    if figures is not None:
        yield from write_figures(Path(figures), named_figures(reports))
