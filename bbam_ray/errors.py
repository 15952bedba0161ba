"""Errors that a user can act on, and the exit codes of the command line."""

from __future__ import annotations

import difflib
import reprlib
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


class NewerVersionError(UsageError):
    """A file was written by a newer version of this program; it is not damaged."""


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


def shown(text: object, most: int = 80) -> str:
    """What comes from outside, for a message: on one line, and no more than tells which it is."""
    if isinstance(text, BaseException):
        text = " ".join(str(text).split()) or type(text).__name__
    words = text if isinstance(text, str) else quoted(text, most)
    short = words if len(words) <= most else f"{words[:most]}..."
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in short)


class _Brief(reprlib.Repr):
    """``repr`` of a few of the values of a collection, three levels deep."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.maxlevel, self.maxother, self.maxstring = 3, most, most

    def repr_int(self, x: int, level: int) -> str:
        return repr(x) if x.bit_length() <= 300 else f"a number of {x.bit_length()} bits"


def quoted(value: object, most: int = 80) -> str:
    """``repr`` of a value from outside, for a message: short, however large or deep the value is."""
    if isinstance(value, str):
        return repr(value if len(value) <= most else f"{value[:most]}...")
    return shown(_Brief(most).repr(value), most)


def similar(name: object, known: Iterable[str]) -> str:
    """``nearest``, without a list of thousands of known names."""
    names = [shown(one) for one in known]
    hint = nearest(shown(name), names)
    return hint if len(hint) < 300 else f"none of the {len(names)} known names is similar"
