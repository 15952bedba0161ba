"""A head that is started as on a cluster, and is ended with all that it has started."""

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
    """Starts ``ray start --head`` with flags, and returns when a probe says that it answers.

    Its processes, and those of nodes that its autoscaler makes, name its folder or have files in it open:
    by that they are found.
    """
    folder = Path("/tmp") / f"bbam-head-{os.getpid()}"  # sockets have short names
    started: list[subprocess.Popen[bytes]] = []

    def start(*flags: str, answers: Callable[[], bool]) -> None:
        command = [str(RAY), "start", "--head", "--block", "--dashboard-host=127.0.0.1"]
        command += ['--resources={"trial_slot": 1000}', f"--temp-dir={folder}", *flags]
        nowhere = subprocess.DEVNULL
        head = subprocess.Popen(command, start_new_session=True, stdout=nowhere, stderr=nowhere)
        started.append(head)
        deadline = time.monotonic() + 120
        while not answers():
            assert head.poll() is None and time.monotonic() < deadline, "no head"
            time.sleep(1)

    yield start
    for process in psutil.process_iter():
        try:
            names = [*process.cmdline(), *(opened.path for opened in process.open_files())]
            if any(str(folder) in name for name in names):
                process.kill()
        except psutil.Error:
            continue
    for head in started:
        head.wait(30)
    shutil.rmtree(folder, ignore_errors=True)
