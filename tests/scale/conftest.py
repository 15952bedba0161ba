"""Programs in the background, their processes, and the settings of runs with epochs of about a second."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# A test run that was started in the background ignores SIGINT, and so would its children.
_HEARING = (
    "import runpy, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
)


def _table() -> dict[int, tuple[int, str]]:
    """Parent and command line of every process that is not a zombie."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            after_name = (folder / "stat").read_text().rpartition(")")[2].split()
            if after_name[0] != "Z":
                text = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
                found[int(folder.name)] = int(after_name[1]), text
        except OSError:  # it has ended meanwhile
            continue
    return found


class Program:
    """A script in a session of its own, whose output and processes can be watched.

    Args:
        command: of the script, after the interpreter.
        cwd: folder that it runs in.
    """

    def __init__(self, command: list[str], cwd: Path) -> None:
        self.lines: list[tuple[float, str]] = []
        self._ours: dict[int, str] = {}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _HEARING, *command],
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            bufsize=1,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "200"},
            start_new_session=True,
        )
        self.pid = self._process.pid
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append((time.monotonic(), line.rstrip("\n")))

    @property
    def output(self) -> str:
        return "\n".join(line for _, line in list(self.lines))

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def processes(self, pattern: str = "") -> list[int]:
        """Living descendants whose command line matches a pattern at its beginning."""
        table = _table()
        family, grown = {self.pid}, True
        while grown:
            more = {pid for pid, (parent, _) in table.items() if parent in family} - family
            family, grown = family | more, bool(more)
        self._ours |= {pid: table[pid][1] for pid in family - {self.pid} if pid in table}
        return sorted(
            pid for pid in family - {self.pid} if pid in table and re.match(pattern, table[pid][1])
        )

    def line(self, pattern: str, *, after: float = 0, timeout: float = 120) -> tuple[float, str]:
        """When the first line after a moment that matches was printed, and the line."""
        deadline = time.monotonic() + timeout
        while True:
            over = self.ended or time.monotonic() > deadline
            for moment, line in list(self.lines):
                if moment >= after and re.search(pattern, line):
                    return moment, line
            assert not over, f"no line {pattern!r} in:\n{self.output}"
            time.sleep(0.05)

    def until(self, condition: Callable[[], object], timeout: float = 120) -> None:
        """Wait for something that is not printed."""
        deadline = time.monotonic() + timeout
        while not condition():
            assert not self.ended, f"ended too early:\n{self.output}"
            assert time.monotonic() < deadline, f"waited in vain:\n{self.output}"
            time.sleep(0.1)

    def finish(self, timeout: float = 180) -> int:
        """Exit code of a program that ends by itself and leaves no process behind."""
        deadline = time.monotonic() + timeout
        while not self.ended:
            assert time.monotonic() < deadline, f"does not end:\n{self.output}"
            self.processes()
            time.sleep(0.5)
        self._reader.join(10)
        left = self._left(within=30)
        assert not left, f"processes left behind: {left}"
        return self._process.returncode

    def _left(self, within: float) -> dict[int, str]:
        deadline = time.monotonic() + within
        while True:
            table = _table()
            # A process number may have been given to another program meanwhile.
            left = {
                pid: table[pid][1]
                for pid in self._ours
                if pid in table and re.search(r"ray", table[pid][1])
            }
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(0.2)

    def kill(self) -> None:
        """End it and everything it has started, at once."""
        self.processes()
        if not self.ended:
            os.kill(self.pid, signal.SIGKILL)
        self._process.wait(30)
        for pid in self._left(within=0):
            try:
                os.kill(pid, signal.SIGCONT)
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        assert not self._left(within=30)
        self._reader.join(10)
        assert self._process.stdout is not None
        self._process.stdout.close()


def _starter(folder: Path) -> Iterator[Callable[..., Program]]:
    started: list[Program] = []

    def start(script: str | Path, *arguments: str) -> Program:
        program = Program([str(ROOT / script), *arguments], folder)
        started.append(program)
        return program

    yield start
    for program in started:
        program.kill()


@pytest.fixture()
def launch(tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """Starts a script with arguments; what still runs at the end of the test is killed."""
    yield from _starter(tmp_path)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Program]]:
    """The same for programs that several tests look at."""
    yield from _starter(tmp_path_factory.mktemp("programs"))


@pytest.fixture(scope="session")
def second_long() -> list[str]:
    """Flags of runs with six epochs of about a second, so that a kill can hit one in its middle."""
    settings = {
        "scenes": 500,
        "test_scenes": 60,
        "labeled_fraction": 0.3,
        "warmup_passes": 5,
        "hidden_dim": 16,
        "feature_dim": 8,
        "unlabeled_weight": 1,
    }
    flags = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    return ["--epochs", "6", "--warmup-epochs", "3", *flags]
