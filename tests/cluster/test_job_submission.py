"""``ray job submit`` from a working copy: it reaches the workers, and no client has to stay connected."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bbam_ray.results.loading import load_study

ROOT = Path(__file__).parents[2]
RAY = Path(sys.executable).with_name("ray")


def job(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([RAY, "job", *arguments], capture_output=True, text=True)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(500)
def test_a_submitted_study_needs_no_connected_client(
    start_head: Callable[..., None],
    free_port: Callable[[], int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    token, dashboard = tmp_path / "auth_token", free_port()
    token.write_text("t" * 40)
    for name, value in (
        ("RAY_AUTH_MODE", "token"),
        ("RAY_AUTH_TOKEN_PATH", str(token)),
        ("PATH", f"{RAY.parent}:{os.environ['PATH']}"),  # for the ``python`` of the job
        ("RAY_ADDRESS", f"http://127.0.0.1:{dashboard}"),
    ):
        monkeypatch.setenv(name, value)
    flags = [f"--port={free_port()}", f"--dashboard-port={dashboard}", "--num-cpus=1"]
    flags += [f"--dashboard-agent-listen-port={free_port()}"]
    start_head(*flags, ready=lambda: job("list").returncode == 0)
    copy = tmp_path / "laptop"
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.check_output(listed, cwd=ROOT, text=True).splitlines():
        if (ROOT / name).exists():  # like a clone, with uncommitted files
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    results = tmp_path / "results"
    study = ["python", "launch/tune.py", "--address", "auto", "--results", str(results)]
    study += ["--name", "sent", "--num-samples", "2", "--epochs", "3", "--warmup-epochs", "1"]
    study += ["--confirm-seeds", "1", "--max-concurrent", "1"]
    study += ["--folds", "1", "--final", "single", "--no-baselines"]
    for setting in ("scenes=100", "test_scenes=40", "warmup_passes=1", "labeled_fraction=0.4"):
        study += ["--set", setting]
    send = ["submit", "--no-wait", "--submission-id", "sent", "--working-dir", str(copy), "--"]
    deadline = time.monotonic() + 150
    while (sent := job(*send, *study)).returncode:
        # The head responds a little before it accepts jobs.
        assert "No available agent" in sent.stderr and time.monotonic() < deadline, sent.stderr
        time.sleep(2)
    shutil.rmtree(copy)  # the laptop is gone
    deadline = time.monotonic() + 250
    while "succeeded" not in (state := job("status", "sent").stdout.lower()):
        assert "failed" not in state, job("logs", "sent").stdout[-3000:]
        assert time.monotonic() < deadline, state
        time.sleep(2)
    loaded = load_study(results / "digits" / "sent")
    assert loaded.status == "COMPLETE" and len(loaded.trials) == 2
    assert sorted(loaded.confirm["answer"]) == ["final", "published"]
