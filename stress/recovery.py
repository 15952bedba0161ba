"""What the loss of a worker costs: seconds until the next epoch is finished, and epochs done twice.

    python -m stress.recovery [--write docs/scaling.md]

Trains digits on two workers of this machine, once undisturbed and once for each way of losing a worker
in mid-epoch. Needs two CPUs and about six minutes.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from bbam_ray.results.store import read_table
from benchmarks.page import write_section

ROOT = Path(__file__).parents[1]
SETTINGS = ["--workers", "2", "--epochs", "8", "--warmup-epochs", "2", "--worker-timeout", "20s"]
SETTINGS += ["--set", "warmup_passes=10", "--set", "unlabeled_weight=1"]
AFTER_EPOCHS = 3


@dataclass(frozen=True)
class Loss:
    """A way of losing a worker: which command runs, which process gets which signal."""

    what: str
    command: str
    process: str
    signal: signal.Signals


LOSSES = (
    Loss("Ray Train, worker killed", "train", "ray::RayTrainWorker", signal.SIGKILL),
    Loss("Ray Train, worker frozen, 20 s limit", "train", "ray::RayTrainWorker", signal.SIGSTOP),
    Loss("search, other worker of a gang killed", "tune", "ray::TrialWorker", signal.SIGKILL),
    Loss("search, first worker of a gang killed", "tune", "ray::Trial", signal.SIGKILL),
)


def below(driver: int, title: str) -> list[int]:
    """Process ids of Ray's workers below a driver whose title begins with a word, oldest first."""
    found = []
    for child in psutil.Process(driver).children(recursive=True):
        try:
            words = child.cmdline()
            if words and re.match(rf"{re.escape(title)}\b", words[0]):
                found.append((child.create_time(), child.pid))
        except psutil.Error:
            continue
    return [pid for _, pid in sorted(found)]


def history(folder: Path) -> dict[int, float]:
    """val_map by epoch, as far as the run has come."""
    path = folder / "history.parquet"
    rows = read_table(path).to_pylist() if path.exists() else []
    epochs = [row["epoch"] for row in rows]
    assert len(epochs) == len(set(epochs)), f"{path}: an epoch is there twice"
    return {row["epoch"]: row["val_map"] for row in rows}


@dataclass(frozen=True)
class Course:
    """How a run went: figures by epoch, seconds in all and after the loss, and the exit code."""

    figures: dict[int, float]
    total_s: float
    until_next_epoch_s: float
    exit_code: int


def run(command: str, results: Path, loss: Loss | None) -> Course:
    """Run a command to its end and lose a worker on the way, if asked to."""
    script = [sys.executable, str(ROOT / "launch" / f"{command}.py"), "--results", str(results)]
    if command == "tune":
        script += ["--num-samples", "1", "--confirm-seeds", "0", "--no-dashboard"]
    folder, quiet = results / "digits" / command, subprocess.DEVNULL
    begun = time.monotonic()
    process = subprocess.Popen([*script, "--name", command, *SETTINGS], stdout=quiet, stderr=quiet)
    lost, lost_at, after, victim, before = False, 0.0, 0.0, 0, 0
    while process.poll() is None:
        time.sleep(0.05)
        if time.monotonic() - begun > 400:
            process.kill()
            raise SystemExit(f"{command}: did not end within 400 s")
        done = len(history(folder)) if loss and not after else 0
        if loss and not lost and done >= AFTER_EPOCHS:
            time.sleep(0.4)  # into the next epoch
            before = len(history(folder))
            victim = below(process.pid, loss.process)[-1]
            os.kill(victim, loss.signal)
            lost, lost_at = True, time.monotonic()
        elif lost and not after and done > before:
            after = time.monotonic() - lost_at
    if victim and psutil.pid_exists(victim):  # frozen, and left behind
        os.kill(victim, signal.SIGKILL)
    return Course(history(folder), time.monotonic() - begun, after, process.returncode)


def table() -> str:
    """A row per loss."""
    lines = [
        "| loss | seconds to the next finished epoch | run longer by | val_map differs by at most |"
    ]
    lines.append("|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        calm = {command: run(command, Path(name) / "calm", None) for command in ("train", "tune")}
        for place, loss in enumerate(LOSSES):
            course = run(loss.command, Path(name) / str(place), loss)
            reference = calm[loss.command]
            assert course.exit_code == 0, f"{loss.what}: exit code {course.exit_code}"
            assert course.figures.keys() == reference.figures.keys(), loss.what
            most = max(abs(course.figures[e] - reference.figures[e]) for e in course.figures)
            longer = course.total_s - reference.total_s
            lines.append(
                f"| {loss.what} | {course.until_next_epoch_s:.0f} | {longer:.0f} s | {most:.4f} |"
            )
            print(lines[-1], flush=True)
    epochs = len(calm["train"].figures)
    lines += ["", f"{epochs} epochs on two workers, one run each, on {os.cpu_count()} CPUs."]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--write", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    text = table()
    print(text)
    if arguments.write:
        write_section(arguments.write, "recovery", text)


if __name__ == "__main__":
    main()
