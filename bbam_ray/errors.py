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
    """Wrong usage, invalid configuration or missing data; the command line ends with exit code 2.

    The message is one sentence: the thing, its value, and what the user can do.
    """


class MissingPackageError(UsageError):
    """An optional package that a setting needs is not installed."""


class NewerVersionError(UsageError):
    """A file was written by a newer version of this program; it is not damaged."""


class NonFiniteError(RuntimeError):
    """A loss became infinite or NaN; raised before the optimizer step."""


class WorkerLostError(RuntimeError):
    """Another worker of the run died or stopped answering; the run can resume from a checkpoint."""


class TrainingStoppedError(RuntimeError):
    """Training stopped on request, between two steps or two epochs, and can resume from there.

    Args:
        where: it stopped.
        is_saved: False if a checkpoint there could not be written.
    """

    def __init__(self, where: str, *, is_saved: bool = True) -> None:
        super().__init__(where)
        self.is_saved = is_saved


class StartError(RuntimeError):
    """A worker cannot start: a package is missing, a version or an import is wrong, its process dies.

    Args:
        node: address of the worker's machine.
        cause: what is wrong there, on one line.
    """

    def __init__(self, node: str, cause: str) -> None:
        super().__init__(node, cause)
        self.node, self.cause = node, cause

    def __str__(self) -> str:
        return f"a worker could not start on node {self.node}: {self.cause}"


class RayStartError(RuntimeError):
    """Ray could not start on this machine; nothing was trained."""


class StorageError(RuntimeError):
    """Results could not be stored; the message names the folder that has them."""


def nearest(name: object, known: Iterable[str]) -> str:
    """A hint for error messages: the most similar known name, or all known names."""
    names = sorted(known)
    close = difflib.get_close_matches(str(name), names, n=1)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(names)}"


def brief(text: object, most: int = 80) -> str:
    """A text, value or error from outside for a message: on one line, printable, at most ``most`` long."""
    if isinstance(text, BaseException):
        text = " ".join(str(text).split()) or type(text).__name__
    line = text if isinstance(text, str) else quoted(text, most)
    short = line if len(line) <= most else f"{line[:most]}..."
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in short)


class _Brief(reprlib.Repr):
    """``repr`` with only the first values of a collection, three levels deep."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.maxlevel, self.maxother, self.maxstring = 3, most, most

    def repr_int(self, x: int, level: int) -> str:
        return repr(x) if x.bit_length() <= 300 else f"a number of {x.bit_length()} bits"


def quoted(value: object, most: int = 80) -> str:
    """``repr`` of a value from outside for a message; short for large or deeply nested values too."""
    if isinstance(value, str):
        return repr(value if len(value) <= most else f"{value[:most]}...")
    return brief(_Brief(most).repr(value), most)


def similar(name: object, known: Iterable[str]) -> str:
    """``nearest`` for long lists of known names: they are not all named."""
    names = [brief(entry) for entry in known]
    hint = nearest(brief(name), names)
    return hint if len(hint) < 300 else f"none of the {len(names)} known names is similar"
