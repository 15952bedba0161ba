"""Kill small studies at random moments, go on with them, and compare with the undisturbed study.

    python -m benchmarks.kills [--kills 20] [--seed 0] [--write benchmarks/README.md]

Every kill (SIGKILL) hits the driver, the driver's whole process group, or a process that trains. After
each, what another process reads in between and what the study has at its end are checked. Needs two CPUs
and about twelve minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import psutil

from bbam_ray.results.store import read_table
from benchmarks.page import hardware, write_section

ROOT = Path(__file__).parents[1]
TRIALS = 6
FLAGS = ["--num-samples", str(TRIALS), "--confirm-seeds", "1", "--no-dashboard", "--no-reuse"]
FLAGS += ["--epochs", "8", "--warmup-epochs", "3", "--scheduler", "asha", "--worker-timeout", "20s"]
for setting in ("scenes=400", "test_scenes=60", "labeled_fraction=0.3", "warmup_passes=5"):
    FLAGS += ["--set", setting]
CLOCK = ("study", "started_at", "duration_s", "gpu_hours", "seconds_", "images_per")
LIMIT_S = 240.0


@dataclass(frozen=True)
class Target:
    """What is killed.

    Args:
        name: in the table.
        process: how the title of the process begins; empty = the driver.
        group: kill the driver's whole process group.
        workers: of a trial.
    """

    name: str
    process: str = ""
    group: bool = False
    workers: int = 1


TARGETS = (
    Target("driver"),
    Target("driver's process group", group=True),
    Target("trial", "ray::Trial"),
    Target("worker of a gang of 2", "ray::TrialWorker", workers=2),
)


def table(folder: Path, name: str) -> pd.DataFrame:
    """A table as another process sees it now; empty before there is one."""
    path = folder / f"{name}.parquet"
    return read_table(path).to_pandas() if path.exists() else pd.DataFrame()


def figures(frame: pd.DataFrame) -> pd.DataFrame:
    """What does not depend on the clock."""
    return frame.drop(columns=[n for n in frame if str(n).startswith(CLOCK)])


@contextmanager
def study(results: Path, *more: str) -> Iterator[subprocess.Popen[bytes]]:
    """A study in the background; nothing of it is left at the end."""
    command = [sys.executable, str(ROOT / "launch" / "tune.py"), "--results", str(results)]
    with (results.parent / "output.txt").open("ab") as output:
        process = subprocess.Popen(
            [*command, "--name", "s", *FLAGS, *more],
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def family(driver: int) -> list[psutil.Process]:
    try:
        return psutil.Process(driver).children(recursive=True)
    except psutil.Error:
        return []


def victims(driver: int, title: str) -> list[int]:
    """Processes below a driver whose title is one word, followed by anything but a letter."""
    found = []
    for child in family(driver):
        try:
            words = (child.cmdline() or [""])[0].split(".")[0].split("(")[0].strip()
            if words == title:
                found.append(child.pid)
        except psutil.Error:
            continue
    return found


def run_to_end(process: subprocess.Popen[bytes], folder: Path, seen: int) -> int:
    """Read the store again and again while a study runs: it is whole, and never loses a trial."""
    deadline = time.monotonic() + LIMIT_S
    while process.poll() is None:
        assert time.monotonic() < deadline, f"{folder}: does not end within {LIMIT_S:g} s"
        now = len(table(folder, "trials"))
        assert now >= seen, f"{folder}: had {seen} trials, now {now}"
        table(folder, "history")
        seen = now
        time.sleep(0.2)
    return seen


def trains(process: psutil.Process) -> bool:
    """Whether it is a process of a trial; Ray's own two agents take a minute or two to notice a kill."""
    try:
        return " ".join(process.cmdline()).startswith(("ray::Trial", "ray::_confirm"))
    except psutil.Error:
        return False


def disturbed(
    place: int, target: Target, rng: random.Random, parent: Path, left: list[psutil.Process]
) -> tuple[Path, str]:
    """Kill once, go on if need be; returns the study's folder and what was hit, at which moment.

    Processes of the killed study, which must end by themselves, are added to ``left``.
    """
    results = parent / f"{place:03d}" / "results"
    results.mkdir(parents=True)
    folder, more = results / "digits" / "s", ["--workers", str(target.workers)]
    with study(results, *more) as process:
        deadline = time.monotonic() + LIMIT_S
        while not len(table(folder, "history")):
            assert process.poll() is None and time.monotonic() < deadline, f"{folder}: no start"
            time.sleep(0.1)
        time.sleep(rng.uniform(0, 14))
        ours, done = family(process.pid), len(table(folder, "trials"))
        hit = f"{target.name} after {done} trials"
        if process.poll() is not None:
            return folder, f"{target.name}: too late, the study had ended"
        if target.group:
            os.killpg(process.pid, signal.SIGKILL)
        elif not target.process:
            os.kill(process.pid, signal.SIGKILL)
        else:
            found = victims(process.pid, target.process)
            if found:
                os.kill(rng.choice(found), signal.SIGKILL)
            else:
                hit = f"{target.name}: none at that moment"
        done = run_to_end(process, folder, done)
        if process.returncode == 0:
            return folder, hit
    left += ours
    _, training = psutil.wait_procs([p for p in ours if trains(p)], timeout=30)
    assert not training, f"{folder}: trials outlive the driver: {training}"
    with study(results, *more, "--resume") as process:
        run_to_end(process, folder, done)
        assert process.returncode == 0, f"{folder}: exit code {process.returncode} after --resume"
    return folder, hit


def lost_or_doubled(folder: Path) -> int:
    """Trials that are absent, or there twice, or whose epochs are not each there once."""
    trials, history, labels = (table(folder, name) for name in ("trials", "history", "labels"))
    double = history.duplicated(["number", "epoch"]).sum()
    double += labels.duplicated(["number", "epoch", "label"]).sum()
    wrong = len(set(range(TRIALS)) - set(trials["number"])) + int(
        trials["number"].duplicated().sum()
    )
    for number, count in zip(trials["number"].tolist(), trials["epochs"].tolist(), strict=True):
        epochs = sorted(history.loc[history["number"] == number, "epoch"])
        wrong += epochs != list(range(1, count + 1))
    return max(wrong, int(double))


def other_figures(folder: Path, calm: Path, *, exact: bool) -> int:
    """Trials whose rows are not those of the undisturbed study: bit for bit, or within 0.005 mAP."""
    if not exact:
        both = [table(place, "trials").set_index("number")["val_map"] for place in (folder, calm)]
        return int(((both[0] - both[1]).abs() > 0.005).sum())
    different: set[int] = set()
    for name in ("trials", "history", "labels"):
        ours, theirs = (figures(table(place, name)) for place in (folder, calm))
        for number in theirs["number"].unique():
            rows = [f[f["number"] == number].reset_index(drop=True) for f in (ours, theirs)]
            if not rows[0].equals(rows[1]):
                different.add(int(number))
    return len(different)


def check(folder: Path) -> None:
    """A study that was disturbed has ended as one does that was not."""
    assert set(table(folder, "trials")["state"]) <= {"COMPLETE", "PRUNED"}, folder
    assert json.loads((folder / "study.json").read_text())["status"] == "COMPLETE", folder
    assert len(table(folder, "confirm")) == 1, folder


def run(kills: int, seed: int) -> list[str]:
    """Markdown lines: what was hit, how often, and what came of it."""
    rng, counts = random.Random(seed), Counter[str]()
    lost, other = Counter[str](), Counter[str]()
    began, left = time.monotonic(), list[psutil.Process]()
    with tempfile.TemporaryDirectory() as name:
        calm = {}
        for workers in sorted({target.workers for target in TARGETS}):
            results = Path(name) / f"calm{workers}" / "results"
            results.mkdir(parents=True)
            calm[workers] = results / "digits" / "s"
            with study(results, "--workers", str(workers)) as process:
                run_to_end(process, calm[workers], 0)
                assert process.returncode == 0, (results.parent / "output.txt").read_text()
        for place in range(kills):
            target = TARGETS[place % len(TARGETS)]
            try:
                folder, hit = disturbed(place, target, rng, Path(name), left)
                check(folder)
            except AssertionError:
                print((Path(name) / f"{place:03d}" / "output.txt").read_text()[-3000:])
                raise
            what = target.name if "after" in hit else "too late or nobody there"
            counts[what] += 1
            wrong = lost_or_doubled(folder)
            strange = other_figures(folder, calm[target.workers], exact=target.workers == 1)
            lost[what] += wrong
            other[what] += strange
            print(f"{place + 1:>3}: {hit}; {wrong} lost or doubled, {strange} other", flush=True)
    _, alive = psutil.wait_procs(left, timeout=180)
    assert not alive, f"processes that nobody ended: {alive}"
    lines = ["| hit | kills | trials lost or doubled | other figures than undisturbed |"]
    lines.append("|---|---|---|---|")
    for what, count in counts.items():
        lines.append(f"| {what} | {count} | {lost[what]} | {other[what]} |")
    minutes = (time.monotonic() - began) / 60
    return [*lines, "", f"Seed {seed}, {minutes:.0f} minutes. {hardware()}"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    text = "\n".join(run(arguments.kills, arguments.seed))
    print(text)
    if arguments.write:
        write_section(arguments.write, "kills", text)


if __name__ == "__main__":
    main()
