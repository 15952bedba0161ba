"""``ray job submit`` from a working copy: it reaches the workers, and nobody needs to listen."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bbam_ray.results.loaded import load_study

ROOT = Path(__file__).parents[2]
RAY = Path(sys.executable).with_name("ray")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture()
def head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of the job server of a head with a token, ended by its folder's name."""
    token = tmp_path / "auth_token"
    token.write_text("t" * 40)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    monkeypatch.setenv("PATH", f"{RAY.parent}:{os.environ['PATH']}")  # the job's ``python``
    folder, dashboard = Path("/tmp") / f"bbam-job-{os.getpid()}", _free_port()
    command = [str(RAY), "start", "--head", f"--port={_free_port()}", "--num-cpus=1", "--block"]
    command += ['--resources={"trial_slot": 1000}', f"--temp-dir={folder}"]
    command += ["--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"]
    process = subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    address = f"http://127.0.0.1:{dashboard}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    try:
        deadline = time.monotonic() + 90
        while subprocess.run([RAY, "job", "list"], capture_output=True).returncode:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(1)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if str(folder) in (entry / "cmdline").read_text(errors="replace"):
                    os.kill(int(entry.name), signal.SIGKILL)
            except OSError:
                continue
        process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_submitted_study_ends_without_anybody_listening(head: str, tmp_path: Path) -> None:
    copy = tmp_path / "laptop"
    ignored = shutil.ignore_patterns(".git", ".venv", "results", "*_cache", "__pycache__", "docs")
    shutil.copytree(ROOT, copy, ignore=ignored)
    results = tmp_path / "results"
    study = ["python", "launch/tune.py", "--address", "auto", "--results", str(results)]
    study += ["--name", "sent", "--num-samples", "2", "--epochs", "3", "--warmup-epochs", "1"]
    study += ["--confirm-seeds", "1", "--max-concurrent", "1"]
    for setting in ("scenes=100", "test_scenes=40", "warmup_passes=1", "labeled_fraction=0.4"):
        study += ["--set", setting]
    sent = subprocess.run(
        [RAY, "job", "submit", "--no-wait", "--working-dir", str(copy), "--", *study],
        capture_output=True,
        text=True,
    )
    assert sent.returncode == 0, sent.stdout + sent.stderr
    shutil.rmtree(copy)  # the laptop is gone
    record, deadline = results / "digits" / "sent" / "study.json", time.monotonic() + 200
    while not record.exists() or load_study(record.parent).status == "RUNNING":
        assert time.monotonic() < deadline, subprocess.run(
            [RAY, "job", "list"], capture_output=True, text=True
        ).stdout
        time.sleep(2)
    found = load_study(record.parent)
    assert found.status == "COMPLETE" and len(found.trials) == 2 and len(found.confirm) == 1
