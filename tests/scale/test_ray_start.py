"""Ray that does not start in time: one sentence, and no process of it stays."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(200)]

# Ray asks every 0.1 s whether its node is registered, for 30 s.
SCRIPT = """
import sys
from ray._private import services

def not_registered(*_):
    raise RuntimeError("no such node yet")

services.get_node = not_registered
from bbam_ray.cli.main import main
main(["tune", "--num-samples", "1", "--no-dashboard", "--name", "s", "--results", sys.argv[1]])
"""


def processes_of(folder: str) -> list[str]:
    """Command lines of the running processes that name a folder."""
    lines = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        if folder in line:
            lines.append(line[:200])
    return lines


def test_a_machine_that_is_too_busy_is_reported_in_one_sentence(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="bbam") as folder:  # sockets need a short path
        started = time.monotonic()
        ended = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(tmp_path)],
            env=os.environ | {"RAY_TMPDIR": folder},
            capture_output=True,
            text=True,
            timeout=150,
            check=False,
        )
        assert ended.returncode == 1, ended.stderr
        assert "error: Ray did not start within its limit of 30 s" in ended.stderr
        assert "Traceback" not in ended.stderr
        assert time.monotonic() - started > 30
        deadline = time.monotonic() + 20
        while (left := processes_of(folder)) and time.monotonic() < deadline:
            time.sleep(0.5)
        assert not left
    assert not list(tmp_path.rglob("*"))  # so the same command can be given again
