"""``bbam-ray report``: the HTML report of a study, a comparison of several, and figures as files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bbam_ray.commands.listener import Listener


class _Paths(Listener):
    """Prints the path of each file that is written."""

    def message(self, text: str) -> None:
        typer.echo(text)


def report(
    studies: Annotated[
        list[Path], typer.Argument(help="Folders or URIs <results>/<dataset>/<study>.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="For several studies: the page that compares them (default: comparison.html in the "
            "folder above them). For one: a copy of its report.",
        ),
    ] = None,
    figures: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Also write the figures as SVG and PDF files."),
    ] = None,
) -> None:
    """Write report.html into each study's folder, and for several a page that compares them."""
    from bbam_ray.commands import report as command

    command.report(studies, output=output, figures=figures, listener=_Paths())
