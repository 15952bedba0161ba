"""Exit codes of commands, and their errors as one sentence."""

from __future__ import annotations

import errno
import functools
from collections.abc import Callable

import typer
from rich.console import Console

from bbam_ray.errors import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    RayStartError,
    StorageError,
    UsageError,
)
from bbam_ray.results.redaction import redacted

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def with_exit_code(command: Callable[..., int | None]) -> Callable[..., None]:
    """Make a command exit with its result, or print its error and exit with the documented code."""

    @functools.wraps(command)
    def run(*args: object, **kwargs: object) -> None:
        console = Console(stderr=True, soft_wrap=True, highlight=False)
        try:
            code = command(*args, **kwargs) or 0
        except UsageError as error:
            console.print(f"error: {redacted(str(error))}", markup=False)
            code = EXIT_USAGE
        except (RayStartError, StorageError) as error:
            console.print(f"error: {redacted(str(error))}", markup=False)
            code = EXIT_FAILED
        except OSError as error:
            if error.errno not in _DISK_ERRORS:
                raise
            file = f"{error.filename}: " if error.filename else ""
            console.print(
                f"error: {file}{error.strerror}; free some space, or write to another disk",
                markup=False,
            )
            code = EXIT_FAILED
        except KeyboardInterrupt:
            console.print("interrupted")
            code = EXIT_INTERRUPTED
        raise typer.Exit(code)

    return run
