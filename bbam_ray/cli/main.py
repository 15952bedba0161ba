"""``bbam-ray``: one program, a command each for searching, training and looking."""

from __future__ import annotations

import functools
from collections.abc import Callable

import typer
from rich.console import Console

from bbam_ray import __version__
from bbam_ray.cli.report import report
from bbam_ray.cli.train import train
from bbam_ray.cli.tune import tune
from bbam_ray.errors import EXIT_INTERRUPTED, EXIT_USAGE, UsageError


def _with_exit_code(command: Callable[..., int | None]) -> Callable[..., None]:
    """A command whose result or error ends the process with the documented exit code."""

    @functools.wraps(command)
    def run(*args: object, **kwargs: object) -> None:
        console = Console(stderr=True, soft_wrap=True, highlight=False)
        try:
            code = command(*args, **kwargs) or 0
        except UsageError as error:
            console.print(f"error: {error}", markup=False)
            code = EXIT_USAGE
        except KeyboardInterrupt:
            console.print("interrupted")
            code = EXIT_INTERRUPTED
        raise typer.Exit(code)

    return run


app = typer.Typer(
    name="bbam-ray",
    help="Semi-supervised multi-label learning with the balanced binary angular margin loss.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (tune, train, report):
    app.command()(_with_exit_code(command))


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"bbam-ray {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Print the version and end."
    ),
) -> None:
    """Semi-supervised multi-label learning with the balanced binary angular margin loss."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; ends the process with exit code 0, 1, 2, 3 or 130."""
    app(args=arguments)
