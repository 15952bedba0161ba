"""``train`` in one process: SIGTERM saves in the middle of an epoch, and the resumed run is the same."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

ROOT = Path(__file__).parents[2]
FLAGS = ["--epochs", "4", "--warmup-epochs", "2", "--name", "run"]
for setting in ("scenes=1500", "test_scenes=40", "warmup_passes=1", "unlabeled_weight=1"):
    FLAGS += ["--set", setting]


def start(results: Path, *flags: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-u", "launch/train.py", "--results", str(results), *FLAGS, *flags]
    return subprocess.Popen(
        command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def rows(results: Path, table: str) -> list[dict[str, Any]]:
    clock = ("seconds_", "images_per_second", "cost", "study")
    return [
        {name: value for name, value in row.items() if not name.startswith(clock)}
        for row in pq.read_table(results / "digits" / "run" / f"{table}.parquet").to_pylist()
    ]


def test_a_terminated_run_resumes_in_its_epoch_with_the_same_result(tmp_path: Path) -> None:
    whole = start(tmp_path / "whole")
    output, _ = whole.communicate(timeout=120)
    assert whole.returncode == 0, output
    run = start(tmp_path / "stopped")
    assert run.stdout is not None
    for line in run.stdout:
        if re.match(r"epoch +2/", line):
            break
    checkpoints = tmp_path / "stopped" / "digits" / "run" / "checkpoints"
    while not (checkpoints / "epoch-00002").is_dir():
        time.sleep(0.01)
    time.sleep(0.3)  # epochs of the main phase take seconds
    run.send_signal(signal.SIGTERM)
    output, _ = run.communicate(timeout=60)
    assert run.returncode == 130, output
    match = re.search(r"^checkpoint after step (\d+) of epoch 3, \d+\.\d s after", output, re.M)
    assert match is not None, output
    assert "interrupted: resume with the same command and --name run --resume" in output
    resumed = start(tmp_path / "stopped", "--resume")
    output, _ = resumed.communicate(timeout=120)
    assert resumed.returncode == 0, output
    step = int(match[1])
    assert f"1 worker, from epoch 2 and {step} step{'s' * (step != 1)} of the next" in output
    for table in ("history", "labels"):
        assert str(rows(tmp_path / "stopped", table)) == str(rows(tmp_path / "whole", table))
    assert not list(checkpoints.glob("*-step-*"))
