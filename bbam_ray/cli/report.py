"""``bbam-ray report``: the HTML report of a study, several studies side by side, figures as files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bbam_ray.errors import UsageError

if TYPE_CHECKING:
    from bbam_ray.report.drawing import Picture
    from bbam_ray.report.report_data import ReportData


def report(
    studies: Annotated[list[Path], typer.Argument(help="Folders <results>/<dataset>/<study>.")],
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Of several studies: the page that compares them (default: comparison.html in the folder "
            "above them). Of one: a copy of its report.",
        ),
    ] = None,
    figures: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write the pictures also as SVG and PDF files."),
    ] = None,
) -> None:
    """Write report.html into each study's folder, and for several a page that compares them."""
    from bbam_ray.files import write_text
    from bbam_ray.report.figure_files import check_figures, write_figures
    from bbam_ray.report.html import write_report
    from bbam_ray.report.page import check_replaceable
    from bbam_ray.report.report_data import ReportData
    from bbam_ray.report.studies import default_page, studies_html
    from bbam_ray.results.study import command_line

    # Whatever is wrong shows before anything is written.
    several = len(studies) > 1
    if len({folder.resolve() for folder in studies}) < len(studies):
        raise UsageError("a study is named twice; name each once")
    reports = [ReportData(folder) for folder in studies]
    compared = output or default_page(studies) if several else None
    if compared is not None:
        check_replaceable(compared)
    if figures is not None:
        check_figures(figures)
    for folder in studies:
        typer.echo(write_report(folder, None if several else output))
    if output is not None and not several:
        typer.echo(output)
    if compared is not None:
        write_text(compared, studies_html(reports, command_line()))
        typer.echo(compared)
    if figures is not None:
        for path in write_figures(figures, _pictures(reports)):
            typer.echo(path)


def _pictures(reports: list[ReportData]) -> dict[str, Picture]:
    """All pictures by file name; those of several studies begin with data set and study."""
    from bbam_ray.report import html, studies

    found: dict[str, Picture] = {}
    for data in reports:
        record = data.record
        dataset = studies.file_part(str(record["dataset"]))
        start = f"{dataset}-{data.folder.name}-" if len(reports) > 1 else ""
        pictures = [p for group in html.groups(data) for p in group.pictures]
        found |= {f"{start}{picture.name}": picture for picture in pictures}
    if len(reports) > 1:
        sets = studies.by_data_set(reports)
        for dataset, mine in sets.items():
            made = studies.groups(dataset, mine, alone=len(sets) == 1)
            found |= {f"comparison-{p.name}": p for group in made for p in group.pictures}
    return found
