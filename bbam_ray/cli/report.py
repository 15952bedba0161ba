"""``bbam-ray report``: make the HTML report of a study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    studies: Annotated[list[Path], typer.Argument(help="Folders <results>/<dataset>/<study>.")],
) -> None:
    """Write report.html into each study's folder."""
    from bbam_ray.report.html import write_report

    for folder in studies:
        typer.echo(write_report(folder))
