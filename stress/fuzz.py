"""Fuzz everything that reads a user's files with damaged and hostile ones: only clean errors are allowed.

python -m stress.fuzz [--cases 10000] [--seed 0] [--only READER ...]

A reader must accept a case, or refuse it with a UsageError of one line. Anything else is a defect: another
exception, a warning, a longer message, or more than 20 seconds. The exit code is 1 if there are defects.
"""

from __future__ import annotations

import argparse
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import hypothesis
import torch
from hypothesis import HealthCheck, Phase, given, settings

from bbam_ray.errors import UsageError
from stress.fuzz_cases import READERS, Reader
from stress.fuzz_folders import Files
from stress.fuzz_formats import mutated

MAX_SECONDS, MAX_MESSAGE = 20, 1000
_MEMORY = 6 << 30  # bytes that may be allocated in addition to those in use
_SHOWN = 300  # bytes of a file that are printed with a defect


@dataclass(frozen=True)
class ReaderCounts:
    """Results of one reader.

    Args:
        reader: its name.
        cases: all cases.
        accepted, refused: cases without a defect.
        defects: cases with a defect.
        slowest_s: seconds of the slowest case.
    """

    reader: str
    cases: int
    accepted: int
    refused: int
    defects: int
    slowest_s: float


class CaseTimeoutError(BaseException):
    """A case takes too long. Not an Exception, so that no reader can catch it by accident."""


class DefectError(Exception):
    """A reader neither accepted a case nor refused it cleanly."""


@contextmanager
def _time_limit() -> Iterator[None]:
    """Interrupt the block after ``MAX_SECONDS``."""

    def stop(*_: object) -> None:
        raise CaseTimeoutError(f"more than {MAX_SECONDS} s")

    handler = signal.signal(signal.SIGALRM, stop)
    left, _ = signal.setitimer(signal.ITIMER_REAL, MAX_SECONDS)
    started = time.monotonic()
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, handler)
        rest = max(0.01, left - (time.monotonic() - started)) if left else 0
        signal.setitimer(signal.ITIMER_REAL, rest)  # pytest sets this alarm, too


def write_case(folder: Path, files: Files) -> None:
    """Write the files of a case into an empty folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content == "/":
            path.mkdir(exist_ok=True)
        else:
            path.symlink_to(content)


def refusal(reader: Reader, files: Files) -> str | None:
    """Read a case.

    Returns:
        The error message; None if the case was accepted.

    Raises:
        DefectError: the reader neither accepted the case nor refused it cleanly.
    """
    with tempfile.TemporaryDirectory() as base, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        folder = Path(base) / "case"
        folder.mkdir()
        write_case(folder, files)
        message = None
        try:
            with (
                mock.patch.dict("os.environ", {"BBAM_RAY_CACHE": str(Path(base) / "cache")}),
                _time_limit(),
            ):
                reader.read(folder)
        except UsageError as error:
            message = str(error)
        except (Exception, CaseTimeoutError) as error:
            raise DefectError(f"{type(error).__name__}: {str(error)[:300]}") from error
    if caught:
        raise DefectError(
            f"a warning: {caught[0].message} ({caught[0].filename}:{caught[0].lineno})"
        )
    if message is not None and (len(message) > MAX_MESSAGE or len(message.splitlines()) != 1):
        raise DefectError(
            f"a message of {len(message)} characters on {len(message.splitlines())} lines: "
            f"{message[:200]!r}"
        )
    return message


@dataclass
class _Tally:
    accepted: int = 0
    refused: int = 0
    defects: int = 0
    slowest: float = 0.0
    kinds: set[str] = field(default_factory=set)


def _fuzz(name: str, reader: Reader, cases: int, seed: int) -> ReaderCounts:
    valid, tally = reader.valid(), _Tally()
    if (message := refusal(reader, valid)) is not None:
        raise AssertionError(f"{name}: the valid case is refused: {message}")

    @hypothesis.seed(seed)
    @settings(
        max_examples=max(1, cases),
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(files=mutated(valid, reader.skip))
    def read(files: Files) -> None:
        started = time.perf_counter()
        try:
            if refusal(reader, files) is None:
                tally.accepted += 1
            else:
                tally.refused += 1
        except DefectError as defect:
            tally.defects += 1
            _show(name, defect, {n: c for n, c in files.items() if valid.get(n) != c}, tally.kinds)
        tally.slowest = max(tally.slowest, time.perf_counter() - started)

    read()
    count = tally.accepted + tally.refused + tally.defects
    return ReaderCounts(name, count, tally.accepted, tally.refused, tally.defects, tally.slowest)


def _show(name: str, defect: DefectError, changed: Files, seen: set[str]) -> None:
    """Print the first defect of each kind; a kind is an exception type at one line of code."""
    cause = defect.__cause__
    frames = traceback.extract_tb(cause.__traceback__) if cause else []
    ours = [f"{frame.filename}:{frame.lineno}" for frame in frames if "bbam_ray" in frame.filename]
    text = re.sub(r"/\S*/|\d+", "", str(defect))  # without paths and numbers
    kind = f"{type(cause).__name__} {ours[-1:]}" if cause else text[:90]
    if kind in seen:
        return
    seen.add(kind)
    print(f"--- {name}: {defect}", flush=True)
    for file, content in changed.items():
        start = content[:_SHOWN]
        print(f"    {file!r}: {start!r}{'' if start == content else f' ... {len(content)} bytes'}")
    if cause is not None:
        print("".join(traceback.format_exception(cause, limit=-6)), flush=True)


def run(cases: int, seed: int, only: list[str] | None = None) -> list[ReaderCounts]:
    """Fuzz every reader with its share of the cases; prints defects, and a line for each reader.

    Args:
        cases: for all readers together.
        seed: a seed always gives the same cases.
        only: names of readers; all of them by default.
    """
    chosen = [name for name in READERS if only is None or name in only]
    counts = []
    for index, name in enumerate(chosen):
        share = (cases * (index + 1)) // len(chosen) - (cases * index) // len(chosen)
        one = _fuzz(name, READERS[name], share, seed)
        counts.append(one)
        print(
            f"{name:26} {one.cases:6} cases {one.accepted:6} accepted {one.refused:6} refused "
            f"{one.defects:4} defects, slowest {one.slowest_s:.2f} s",
            flush=True,
        )
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=READERS, metavar="READER")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0])
    limit = pages * resource.getpagesize() + _MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    started = time.perf_counter()
    counts = run(arguments.cases, arguments.seed, arguments.only)
    cases, defects = sum(one.cases for one in counts), sum(one.defects for one in counts)
    print(f"{cases} cases, {defects} defects, {time.perf_counter() - started:.0f} s")
    sys.exit(1 if defects else 0)


if __name__ == "__main__":
    main()
