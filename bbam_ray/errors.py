"""Errors that a user can act on, and the exit codes of the command line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_SOME_TRIALS_FAILED = 3
EXIT_INTERRUPTED = 130


class UsageError(Exception):
    """Wrong usage, bad configuration or missing data: one sentence that names thing, value and way out.

    Raised before anything starts or is written; the command line ends with exit code 2.
    """


class NonFiniteError(RuntimeError):
    """A loss became infinite or NaN; raised before the optimizer moves."""


class WorkerLostError(RuntimeError):
    """Another worker of the run died or stopped answering; the run can go on from a checkpoint."""


class StorageError(RuntimeError):
    """Results could not be stored where they belong; the message names the copy that has them."""


def nearest(name: object, known: Iterable[str]) -> str:
    """A hint that names the closest known name, else all of them (for error messages)."""
    names = sorted(known)
    close = difflib.get_close_matches(str(name), names, n=1)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(names)}"
