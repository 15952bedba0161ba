"""``bbam-ray``: the command line with all its commands."""

from __future__ import annotations

import io
import sys

import typer

from bbam_ray import __version__
from bbam_ray.cli.compare import compare
from bbam_ray.cli.data import app as data
from bbam_ray.cli.doctor import doctor
from bbam_ray.cli.exit_codes import with_exit_code
from bbam_ray.cli.export import export
from bbam_ray.cli.predict import predict
from bbam_ray.cli.report import report
from bbam_ray.cli.settings import settings
from bbam_ray.cli.train import train
from bbam_ray.cli.tune import tune
from bbam_ray.cli.watch import watch

app = typer.Typer(
    name="bbam-ray",
    help="Semi-supervised multi-label learning with the balanced binary angular margin loss.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (tune, train, compare, report, watch, predict, export, settings, doctor):
    app.command()(with_exit_code(command))
app.add_typer(data, name="data")


def _show_version(requested: bool) -> None:
    if requested:
        typer.echo(f"bbam-ray {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False,
        "--version",
        callback=_show_version,
        is_eager=True,
        help="Print the version and exit.",
    ),
) -> None:
    """Semi-supervised multi-label learning with the balanced binary angular margin loss."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with code 0, 1, 2, 3 or 130."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names may have characters that the stream lacks
            stream.reconfigure(errors="backslashreplace")
    app(args=arguments)
