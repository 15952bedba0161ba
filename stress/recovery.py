"""What the loss of a worker costs: seconds until the next epoch ends, and a longer run.

    python -m stress.recovery [--write docs/scaling.md]

Trains digits on two workers of this machine, once undisturbed and once for each way to lose a worker in
the middle of an epoch. Takes about six minutes on two CPUs.
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
    """A way to lose a worker: which process of a command gets which signal.

    Args:
        name: in the table.
        command: train or tune.
        process: title of the process.
        signal: sent to it.
    """

    name: str
    command: str
    process: str
    signal: signal.Signals


LOSSES = (
    Loss("Ray Train, worker killed", "train", "ray::RayTrainWorker", signal.SIGKILL),
    Loss("Ray Train, worker frozen, 20 s limit", "train", "ray::RayTrainWorker", signal.SIGSTOP),
    Loss("search, other worker of a gang killed", "tune", "ray::TrialWorker", signal.SIGKILL),
    Loss("search, first worker of a gang killed", "tune", "ray::Trial", signal.SIGKILL),
)


def pids_of(driver: int, title: str) -> list[int]:
    """Ids of the driver's descendants whose title begins with a word, oldest first."""
    processes = []
    for child in psutil.Process(driver).children(recursive=True):
        try:
            words = child.cmdline()
            if words and re.match(rf"{re.escape(title)}\b", words[0]):
                processes.append((child.create_time(), child.pid))
        except psutil.Error:
            continue
    return [pid for _, pid in sorted(processes)]


def history(folder: Path) -> dict[int, float]:
    """Epoch to val_map, for the epochs so far."""
    path = folder / "history.parquet"
    rows = read_table(path).to_pylist() if path.exists() else []
    epochs = [row["epoch"] for row in rows]
    assert len(epochs) == len(set(epochs)), f"{path}: duplicate epoch"
    return {row["epoch"]: row["val_map"] for row in rows}


@dataclass(frozen=True)
class Course:
    """val_map by epoch, total seconds, seconds from the loss to the next epoch, and the exit code."""

    val_map: dict[int, float]
    total_s: float
    until_next_epoch_s: float
    exit_code: int


def run(command: str, results: Path, loss: Loss | None) -> Course:
    """Run a command to its end; unless ``loss`` is None, lose a worker after ``AFTER_EPOCHS`` epochs."""
    script = [sys.executable, str(ROOT / "launch" / f"{command}.py"), "--results", str(results)]
    if command == "tune":
        script += ["--num-samples", "1", "--confirm-seeds", "0", "--no-dashboard"]
    folder, quiet = results / "digits" / command, subprocess.DEVNULL
    started = time.monotonic()
    process = subprocess.Popen([*script, "--name", command, *SETTINGS], stdout=quiet, stderr=quiet)
    lost, lost_at, seconds, victim, before = False, 0.0, 0.0, 0, 0
    while process.poll() is None:
        time.sleep(0.05)
        if time.monotonic() - started > 400:
            process.kill()
            raise SystemExit(f"{command}: did not end within 400 s")
        done = len(history(folder)) if loss and not seconds else 0
        if loss and not lost and done >= AFTER_EPOCHS:
            time.sleep(0.4)  # into the next epoch
            before = len(history(folder))
            victim = pids_of(process.pid, loss.process)[-1]
            os.kill(victim, loss.signal)
            lost, lost_at = True, time.monotonic()
        elif lost and not seconds and done > before:
            seconds = time.monotonic() - lost_at
    if victim and psutil.pid_exists(victim):  # stopped, and still there
        os.kill(victim, signal.SIGKILL)
    return Course(history(folder), time.monotonic() - started, seconds, process.returncode)


def table() -> str:
    """Run everything; returns a Markdown table with a row per loss."""
    lines = [
        "| loss | seconds to the next finished epoch | run longer by | val_map differs by at most |"
    ]
    lines.append("|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        undisturbed = {
            command: run(command, Path(name) / "undisturbed", None) for command in ("train", "tune")
        }
        for number, loss in enumerate(LOSSES):
            course = run(loss.command, Path(name) / str(number), loss)
            reference = undisturbed[loss.command]
            assert course.exit_code == 0, f"{loss.name}: exit code {course.exit_code}"
            assert course.val_map.keys() == reference.val_map.keys(), loss.name
            largest = max(abs(course.val_map[e] - reference.val_map[e]) for e in course.val_map)
            longer = course.total_s - reference.total_s
            lines.append(
                f"| {loss.name} | {course.until_next_epoch_s:.0f} | {longer:.0f} s | {largest:.4f} |"
            )
            print(lines[-1], flush=True)
    epochs = len(undisturbed["train"].val_map)
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
