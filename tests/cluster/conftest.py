"""Start the head of a Ray cluster, and end it with all of its processes."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

RAY = Path(sys.executable).with_name("ray")
Start = Callable[..., None]


@pytest.fixture()
def free_port() -> Callable[[], int]:
    """Returns a free port."""

    def find() -> int:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            return int(free.getsockname()[1])

    return find


@pytest.fixture()
def start_head() -> Iterator[Start]:
    """Returns a function that runs ``ray start --head`` with flags and waits until ``ready`` returns True.

    Afterwards all processes are killed whose command line or open files are in its temporary folder. These
    are its own processes and those of the nodes that its autoscaler has started.
    """
    folder = Path("/tmp") / f"bbam-head-{os.getpid()}"  # socket paths must be short
    started: list[subprocess.Popen[bytes]] = []

    def start(*flags: str, ready: Callable[[], bool]) -> None:
        command = [str(RAY), "start", "--head", "--block", "--dashboard-host=127.0.0.1"]
        command += ['--resources={"trial_slot": 1000}', f"--temp-dir={folder}", *flags]
        quiet = subprocess.DEVNULL
        head = subprocess.Popen(command, start_new_session=True, stdout=quiet, stderr=quiet)
        started.append(head)
        deadline = time.monotonic() + 120
        while not ready():
            assert head.poll() is None and time.monotonic() < deadline, "the head does not start"
            time.sleep(1)

    yield start
    for process in psutil.process_iter():
        try:
            paths = [*process.cmdline(), *(opened.path for opened in process.open_files())]
            if any(str(folder) in path for path in paths):
                process.kill()
        except psutil.Error:
            continue
    for head in started:
        head.wait(30)
    shutil.rmtree(folder, ignore_errors=True)
