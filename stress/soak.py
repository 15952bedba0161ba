"""Soak tests: many short studies in one process, and one long study. No resource may grow.

    python -m stress.soak FOLDER SECONDS

runs the short studies and prints a sample of the resources after each.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from stress.stored_study import CheckFailedError
from stress.study_process import ROOT

#: Settings of trials that take a fraction of a second.
TINY = {"scenes": 100, "test_scenes": 40, "warmup_passes": 1, "labeled_fraction": 0.4}
TINY |= {"hidden_dim": 16, "feature_dim": 8}
_MB = 1e6
Sample = dict[str, float]


def run(minutes: float) -> list[tuple[str, str, dict[str, Any]]]:
    """Short studies for two thirds of the time, then a long study.

    Returns:
        Rows of ``chaos_results.append``: "soak", name of the resource, its values.
    """
    with tempfile.TemporaryDirectory(prefix="s-") as name:  # socket paths must be short
        folder = Path(name)
        (folder / "t").mkdir()
        env = {**os.environ, "TMPDIR": str(folder / "t"), "RAY_TMPDIR": str(folder / "r")}
        env["BBAM_RAY_CACHE"] = str(folder / "cache")
        short = _short_studies(folder, minutes * 40, env)
        ray_alone = _ray_alone(len(short), env | {"RAY_TMPDIR": str(folder / "b")})
        long = _long_study(folder, minutes * 20, env)
    rows = _rows("short studies", short)
    rows += _rows("Ray alone, one actor each time", ray_alone)
    rows += _rows("long study", long)
    return [("soak", resource, values) for resource, values in rows]


def _rows(prefix: str, samples: list[Sample]) -> list[tuple[str, dict[str, Any]]]:
    """Each resource after a tenth of the samples (all is loaded by then), at the end, and its maximum."""
    if not samples:
        raise CheckFailedError(f"{prefix}: no sample was taken in this time; use more --minutes")
    later = samples[len(samples) // 10 :]
    return [
        (
            f"{prefix}: {name.replace('_', ' ')}",
            {
                "first": later[0][name],
                "last": later[-1][name],
                "maximum": max(sample[name] for sample in later),
            },
        )
        for name in samples[0]
    ]


def _short_studies(folder: Path, seconds: float, env: Mapping[str, str]) -> list[Sample]:
    command = [sys.executable, "-m", "stress.soak", str(folder), str(seconds)]
    process = subprocess.run(
        command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True, timeout=seconds + 300
    )
    if process.returncode:
        raise CheckFailedError(f"the studies ended with exit code {process.returncode}")
    lines = [line for line in process.stdout.splitlines() if line.startswith("{")]
    print(f"{len(lines)} short studies", flush=True)
    return [json.loads(line) for line in lines]


_RAY_ALONE = """
import json, logging, psutil, ray, sys

class Actor:
    def reply(self):
        return 1

for number in range(int(sys.argv[1])):
    ray.init(address="local", num_cpus=2, include_dashboard=False, logging_level=logging.ERROR)
    actor = ray.remote(num_cpus=0)(Actor).remote()
    ray.get(actor.reply.remote())
    ray.kill(actor)
    ray.shutdown()
    driver = psutil.Process()
    sample = {"driver_memory_MB": driver.memory_info().rss / 1e6}
    sample |= {"open_files": driver.num_fds(), "threads": driver.num_threads()}
    print(json.dumps(sample), flush=True)
"""


def _ray_alone(count: int, env: Mapping[str, str]) -> list[Sample]:
    """Samples of a process that only starts Ray, calls an actor and ends Ray, ``count`` times."""
    ended = subprocess.run(
        [sys.executable, "-c", _RAY_ALONE, str(count)], env=env, stdout=subprocess.PIPE, text=True
    )
    return [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]


def studies(folder: Path, seconds: float) -> None:
    """Run short studies until the time is up, and print a sample after each."""
    from bbam_ray.api import tune_study

    until = time.monotonic() + seconds
    number = 0
    while time.monotonic() < until:
        study = tune_study(
            settings=TINY,
            name=f"n{number:04d}",
            results=folder / "results",
            num_samples=2,
            confirm_seeds=1,
            epochs=3,
            warmup_epochs=1,
            dashboard=False,
            reuse=False,
            quiet=True,
        )
        if study.status != "COMPLETE" or len(study.trials) != 2:
            raise CheckFailedError(f"study {number}: {study}")
        number += 1
        sample = _sample(psutil.Process(), folder) | {"studies": number}
        del sample["trials"]
        print(json.dumps(sample), flush=True)


def _long_study(folder: Path, seconds: float, env: Mapping[str, str]) -> list[Sample]:
    command = [sys.executable, str(ROOT / "launch" / "tune.py"), "--name", "long"]
    command += ["--results", str(folder / "results"), "--num-samples", "100000", "--quiet"]
    command += ["--time-budget", f"{seconds:.0f}s", "--epochs", "3", "--warmup-epochs", "1"]
    command += ["--confirm-seeds", "1", "--no-dashboard", "--no-reuse", "--sampler", "random"]
    for name, value in TINY.items():
        command += ["--set", f"{name}={value}"]
    samples = []
    with subprocess.Popen(command, env=env) as process:
        deadline = time.monotonic() + seconds + 300
        while process.poll() is None:
            if time.monotonic() > deadline:
                process.kill()
                raise CheckFailedError("the long study does not end")
            time.sleep(3)
            try:
                sample = _sample(psutil.Process(process.pid), folder)
            except psutil.Error:
                break
            if sample["trials"]:
                samples.append(sample)
    if process.returncode:
        raise CheckFailedError(f"the long study ended with exit code {process.returncode}")
    print(f"a study of {samples[-1]['trials']:.0f} trials", flush=True)
    # After the search its processes end; samples from then on would show less memory.
    return [s for s in samples if s["trial_memory_MB"]]


def _sample(driver: psutil.Process, folder: Path) -> Sample:
    """Resources that a driver, its processes and its folders use now."""
    trials = []
    for child in driver.children(recursive=True):
        try:
            if " ".join(child.cmdline()).startswith("ray::Trial"):
                trials.append(child.memory_info().rss)
        except psutil.Error:
            continue
    table = folder / "results" / "digits" / "long" / "trials.parquet"
    return {
        "driver_memory_MB": driver.memory_info().rss / _MB,
        "trial_memory_MB": max(trials, default=0) / _MB,
        "open_files": driver.num_fds(),
        "threads": driver.num_threads(),
        "processes": len(driver.children(recursive=True)),
        "temporary_entries": len(list((folder / "t").iterdir())),
        "Ray_sessions": len(list((folder / "r").glob("ray/session_2*"))),
        "Ray_folder_MB": folder_bytes(folder / "r") / _MB,
        "trials": _count_rows(table),
    }


def folder_bytes(folder: Path) -> int:
    """Bytes of all files in a folder; links do not count."""
    total = 0
    for path in folder.rglob("*"):
        try:
            if path.is_file() and not path.is_symlink():
                total += path.stat().st_size
        except OSError:
            continue
    return total


def _count_rows(path: Path) -> int:
    from bbam_ray.results.store import read_table

    return read_table(path).num_rows if path.exists() else 0


if __name__ == "__main__":
    studies(Path(sys.argv[1]), float(sys.argv[2]))
