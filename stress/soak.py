"""Tiny studies back to back in one process, and one long study: nothing may grow.

Run as a program with a folder and seconds, it is that one process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import psutil

from stress.disturbed import ROOT
from stress.stored_study import BrokenPromiseError

_TINY = {"scenes": 100, "test_scenes": 40, "warmup_passes": 1, "labeled_fraction": 0.4}
_TINY |= {"hidden_dim": 16, "feature_dim": 8}
_MB = 1e6
Sample = dict[str, float]


def run(minutes: float) -> list[tuple[str, str, dict[str, Any]]]:
    """Two thirds of the time on short studies, one third on a long one; figures by part and kind."""
    with tempfile.TemporaryDirectory(prefix="s-") as name:  # sockets have short names
        place = Path(name)
        (place / "t").mkdir()
        env = {**os.environ, "TMPDIR": str(place / "t"), "RAY_TMPDIR": str(place / "r")}
        env["BBAM_RAY_CACHE"] = str(place / "cache")
        short = _short(place, minutes * 40, env)
        bare = _bare(len(short), env | {"RAY_TMPDIR": str(place / "b")})
        long = _long(place, minutes * 20, env)
    rows = (
        _rows("", short)
        + _rows("Ray alone, with one actor, as often: ", bare)
        + _rows("long study: ", long)
    )
    return [("soak", kind, figures) for kind, figures in rows]


def _rows(prefix: str, samples: list[Sample]) -> list[tuple[str, dict[str, Any]]]:
    """Each measure after the first tenth (everything is loaded then), at the end, and its maximum."""
    later = samples[len(samples) // 10 :]
    return [
        (
            prefix + name.replace("_", " "),
            {
                "began": later[0][name],
                "ended": later[-1][name],
                "most": max(sample[name] for sample in later),
            },
        )
        for name in samples[0]
    ]


def _short(place: Path, seconds: float, env: Mapping[str, str]) -> list[Sample]:
    command = [sys.executable, "-m", "stress.soak", str(place), str(seconds)]
    process = subprocess.run(
        command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True, timeout=seconds + 300
    )
    if process.returncode:
        raise BrokenPromiseError(f"the studies ended with exit code {process.returncode}")
    lines = [line for line in process.stdout.splitlines() if line.startswith("{")]
    print(f"{len(lines)} studies back to back", flush=True)
    return [json.loads(line) for line in lines]


_BARE = """
import json, logging, psutil, ray, sys

class Actor:
    def answer(self):
        return 1

for number in range(int(sys.argv[1])):
    ray.init(address="local", num_cpus=2, include_dashboard=False, logging_level=logging.ERROR)
    actor = ray.remote(num_cpus=0)(Actor).remote()
    ray.get(actor.answer.remote())
    ray.kill(actor)
    ray.shutdown()
    me = psutil.Process()
    held = {"driver_memory_MB": me.memory_info().rss / 1e6}
    print(json.dumps(held | {"open_files": me.num_fds(), "threads": me.num_threads()}), flush=True)
"""


def _bare(count: int, env: Mapping[str, str]) -> list[Sample]:
    """What Ray itself holds in a process that starts it, asks an actor and ends it so often."""
    done = subprocess.run(
        [sys.executable, "-c", _BARE, str(count)], env=env, stdout=subprocess.PIPE, text=True
    )
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def studies(place: Path, seconds: float) -> None:
    """Run studies until the time is up, and print a sample after each."""
    from bbam_ray.api import tune_study

    until = time.monotonic() + seconds
    number = 0
    while time.monotonic() < until:
        found = tune_study(
            settings=_TINY,
            name=f"n{number:04d}",
            results=place / "results",
            num_samples=2,
            confirm_seeds=1,
            epochs=3,
            warmup_epochs=1,
            dashboard=False,
            reuse=False,
            quiet=True,
        )
        if found.status != "COMPLETE" or len(found.trials) != 2:
            raise BrokenPromiseError(f"study {number}: {found}")
        number += 1
        sample = _sample(psutil.Process(), place) | {"studies": number}
        del sample["trials"]
        print(json.dumps(sample), flush=True)


def _long(place: Path, seconds: float, env: Mapping[str, str]) -> list[Sample]:
    command = [sys.executable, str(ROOT / "launch" / "tune.py"), "--name", "long"]
    command += ["--results", str(place / "results"), "--num-samples", "100000", "--quiet"]
    command += ["--time-budget", f"{seconds:.0f}s", "--epochs", "3", "--warmup-epochs", "1"]
    command += ["--confirm-seeds", "1", "--no-dashboard", "--no-reuse", "--sampler", "random"]
    for name, value in _TINY.items():
        command += ["--set", f"{name}={value}"]
    samples = []
    with subprocess.Popen(command, env=env) as process:
        deadline = time.monotonic() + seconds + 300
        while process.poll() is None:
            if time.monotonic() > deadline:
                process.kill()
                raise BrokenPromiseError("the long study does not end")
            time.sleep(3)
            try:
                sample = _sample(psutil.Process(process.pid), place)
            except psutil.Error:
                break
            if sample["trials"]:
                samples.append(sample)
    if process.returncode:
        raise BrokenPromiseError(f"the long study ended with exit code {process.returncode}")
    print(f"a study of {samples[-1]['trials']:.0f} trials", flush=True)
    # A search that is over lets its processes go; the last samples see that.
    return [s for s in samples if s["trial_memory_MB"]]


def _sample(driver: psutil.Process, place: Path) -> Sample:
    """What a driver, its processes and its folders hold at this moment."""
    trials = []
    for child in driver.children(recursive=True):
        try:
            if " ".join(child.cmdline()).startswith("ray::Trial"):
                trials.append(child.memory_info().rss)
        except psutil.Error:
            continue
    latest = place / "results" / "digits" / "long" / "trials.parquet"
    return {
        "driver_memory_MB": driver.memory_info().rss / _MB,
        "trial_memory_MB": max(trials, default=0) / _MB,
        "open_files": driver.num_fds(),
        "threads": driver.num_threads(),
        "processes": len(driver.children(recursive=True)),
        "temporary_entries": len(list((place / "t").iterdir())),
        "Ray_sessions": len(list((place / "r").glob("ray/session_2*"))),
        "Ray_folder_MB": _bytes((place / "r").rglob("*")) / _MB,
        "trials": _rows_of(latest),
    }


def _bytes(paths: Iterable[Path]) -> int:
    total = 0
    for path in paths:
        try:
            if path.is_file() and not path.is_symlink():
                total += path.stat().st_size
        except OSError:
            continue
    return total


def _rows_of(path: Path) -> int:
    from bbam_ray.results.store import read_table

    return read_table(path).num_rows if path.exists() else 0


if __name__ == "__main__":
    studies(Path(sys.argv[1]), float(sys.argv[2]))
