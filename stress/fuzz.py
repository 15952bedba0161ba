"""Damaged and hostile files for everything that reads what a user can bring: only clean errors may come.

python -m stress.fuzz [--cases 10000] [--seed 0] [--only READER ...]

A case is accepted, or refused with a UsageError of one line. Everything else is a defect, and ends the
program with exit code 1: another exception, a warning, a longer message, or more than 20 seconds.
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
_MEMORY = 6 << 30  # that may be asked for beyond what is in use
_SHOWN = 300  # bytes of a file in a report of a defect


@dataclass(frozen=True)
class Fuzzed:
    """How a reader took its cases.

    Args:
        accepted, refused: cases without a defect.
        tracebacks: cases with one.
        slowest_s: seconds of the slowest case.
    """

    reader: str
    cases: int
    accepted: int
    refused: int
    tracebacks: int
    slowest_s: float


class HangError(BaseException):
    """A case takes too long; no reader may take it for something that it expects."""


class Defect(Exception):  # noqa: N818 - it is what is looked for
    """A reader did something else than to accept a case or to refuse it cleanly."""


@contextmanager
def _limited() -> Iterator[None]:
    """Within it, what takes too long is interrupted."""

    def stop(*_: object) -> None:
        raise HangError(f"more than {MAX_SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    left, _ = signal.setitimer(signal.ITIMER_REAL, MAX_SECONDS)
    began = time.monotonic()
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, before)
        rest = max(0.01, left - (time.monotonic() - began)) if left else 0
        signal.setitimer(signal.ITIMER_REAL, rest)  # pytest has an alarm of its own


def write_case(folder: Path, files: Files) -> None:
    """Make the files of a case in an empty folder."""
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
    """Read a case; the message if it is refused.

    Raises:
        Defect: anything else than an answer or a clean refusal.
    """
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        folder = Path(place) / "case"
        folder.mkdir()
        write_case(folder, files)
        message = None
        try:
            with (
                mock.patch.dict("os.environ", {"BBAM_RAY_CACHE": str(Path(place) / "cache")}),
                _limited(),
            ):
                reader.read(folder)
        except UsageError as error:
            message = str(error)
        except (Exception, HangError) as error:
            raise Defect(f"{type(error).__name__}: {str(error)[:300]}") from error
    if warned:
        raise Defect(f"a warning: {warned[0].message} ({warned[0].filename}:{warned[0].lineno})")
    if message is not None and (len(message) > MAX_MESSAGE or len(message.splitlines()) != 1):
        raise Defect(
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


def _fuzz(name: str, reader: Reader, cases: int, seed: int) -> Fuzzed:
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
        began = time.perf_counter()
        try:
            if refusal(reader, files) is None:
                tally.accepted += 1
            else:
                tally.refused += 1
        except Defect as defect:
            tally.defects += 1
            _show(name, defect, {n: c for n, c in files.items() if valid.get(n) != c}, tally.kinds)
        tally.slowest = max(tally.slowest, time.perf_counter() - began)

    read()
    count = tally.accepted + tally.refused + tally.defects
    return Fuzzed(name, count, tally.accepted, tally.refused, tally.defects, tally.slowest)


def _show(name: str, defect: Defect, changed: Files, seen: set[str]) -> None:
    """Print the first defect of each kind: of one type, at one place."""
    cause = defect.__cause__
    frames = traceback.extract_tb(cause.__traceback__) if cause else []
    ours = [f"{frame.filename}:{frame.lineno}" for frame in frames if "bbam_ray" in frame.filename]
    text = re.sub(r"/\S*/|\d+", "", str(defect))  # without what differs from case to case
    kind = f"{type(cause).__name__} {ours[-1:]}" if cause else text[:90]
    if kind in seen:
        return
    seen.add(kind)
    print(f"--- {name}: {defect}", flush=True)
    for file, content in changed.items():
        short = content if len(content) <= _SHOWN else content[:_SHOWN]
        print(f"    {file!r}: {short!r}{'' if short == content else f' ... {len(content)} bytes'}")
    if cause is not None:
        print("".join(traceback.format_exception(cause, limit=-6)), flush=True)


def run(cases: int, seed: int, only: list[str] | None = None) -> list[Fuzzed]:
    """Fuzz every reader with its share of the cases; prints a line for each, and defects before it.

    Args:
        seed: the same cases for the same number.
        only: names of readers; all of them by default.
    """
    chosen = [name for name in READERS if only is None or name in only]
    found = []
    for place, name in enumerate(chosen):
        share = (cases * (place + 1)) // len(chosen) - (cases * place) // len(chosen)
        one = _fuzz(name, READERS[name], share, seed)
        found.append(one)
        print(
            f"{name:26} {one.cases:6} cases {one.accepted:6} accepted {one.refused:6} refused "
            f"{one.tracebacks:4} defects, slowest {one.slowest_s:.2f} s",
            flush=True,
        )
    return found


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
    most = pages * resource.getpagesize() + _MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))
    began = time.perf_counter()
    found = run(arguments.cases, arguments.seed, arguments.only)
    defects = sum(one.tracebacks for one in found)
    print(
        f"{sum(one.cases for one in found)} cases, {defects} defects, {time.perf_counter() - began:.0f} s"
    )
    sys.exit(1 if defects else 0)


if __name__ == "__main__":
    main()
