"""Time from the end of a trial to the end of the next: a persistent gang, or Ray Train in each trial."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from statistics import median

from bbam_ray.results.store import read_table
from benchmarks.measure import Measured

ROOT = Path(__file__).parents[1]
SMALL = ("scenes=120", "test_scenes=40", "labeled_fraction=0.4", "warmup_passes=1")


def gaps(runner: str, trials: int) -> list[float]:
    """Seconds between the ends of successive trials of two workers."""
    with tempfile.TemporaryDirectory() as name:
        command = [sys.executable, "launch/tune.py", "--results", name, "--name", "s", "--quiet"]
        command += ["--num-samples", str(trials), "--max-concurrent", "1", "--workers", "2"]
        command += ["--trial-runner", runner, "--epochs", "2", "--warmup-epochs", "1"]
        command += ["--confirm-seeds", "0", "--no-reuse"]
        for setting in SMALL:
            command += ["--set", setting]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        table = read_table(Path(name) / "digits" / "s" / "trials.parquet").to_pandas()
    starts = table["started_at"].astype("datetime64[us, UTC]").astype("int64") / 1e6
    ends = sorted(starts + table["duration_s"])
    return [later - earlier for earlier, later in pairwise(ends)]


def run(full: bool) -> list[Measured]:
    """Eight trials with each runner if ``full``, else four."""
    trials = 8 if full else 4
    plain, ours = gaps("train", trials), gaps("gang", trials)
    return [
        Measured(
            "start-up",
            "a trial of two workers and two small epochs, from end to end",
            median(plain),
            median(ours),
            median(plain) / median(ours),
            trials - 1,
        )
    ]
