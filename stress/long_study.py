"""A long study of short trials: what its driver uses after some numbers of trials. Nothing may grow.

    python -m stress.long_study [--trials 1000] [--folds 1] [--prefix "before: "] [--store FILE]
        [--write stress/README.md]

The driver runs in a process of its own, with temporary folders of its own. Takes 5 minutes on two CPUs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from benchmarks.page import write_section
from stress.chaos_results import STORE, append, table
from stress.soak import TINY, folder_bytes
from stress.stored_study import CheckFailedError
from stress.study_process import ROOT

#: Numbers of ended trials at which the driver is measured.
MOMENTS = (30, 90, 200, 400, 600, 1000)
_MB = 1e6
Sample = dict[str, float]


def run(trials: int, folds: int, prefix: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Run a study.

    Args:
        trials: how many.
        folds: of each trial.
        prefix: of the names of the rows, to tell runs apart.

    Returns:
        Rows of ``chaos_results.append``: "growth", the number of trials, values by name.

    Raises:
        CheckFailedError: the study failed.
    """
    with tempfile.TemporaryDirectory(prefix="s-") as name:  # socket paths must be short
        folder = Path(name)
        (folder / "t").mkdir()
        env = {**os.environ, "TMPDIR": str(folder / "t"), "RAY_TMPDIR": str(folder / "r")}
        env["BBAM_RAY_CACHE"] = str(folder / "cache")
        arguments = ["--driver", name, "--trials", str(trials), "--folds", str(folds)]
        command = [sys.executable, "-m", "stress.long_study", *arguments]
        ended = subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True)
    if ended.returncode:
        raise CheckFailedError(f"the long study ended with exit code {ended.returncode}")
    samples = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]
    return [("growth", f"{prefix}{sample.pop('trials'):.0f} trials", sample) for sample in samples]


def driver(folder: Path, trials: int, folds: int) -> None:
    """Run the study in this process, and print a sample at each of ``MOMENTS``."""
    from bbam_ray.cli.main import main
    from bbam_ray.results.store import StudyStore
    from bbam_ray.scale.study.trial_cache import TrialCache

    ended, seconds = 0, list[float]()

    def timed(flush: Callable[..., bool]) -> Callable[..., bool]:
        def measure(*arguments: Any, **options: Any) -> bool:
            started = time.perf_counter()
            written = flush(*arguments, **options)
            seconds.append(time.perf_counter() - started)
            return written

        return measure

    def counted(add: Callable[..., None]) -> Callable[..., None]:
        def count(*arguments: Any) -> None:
            nonlocal ended
            add(*arguments)
            ended += 1
            if ended in MOMENTS:
                print(json.dumps({"trials": ended, **_sample(folder, seconds)}), flush=True)
                seconds.clear()

        return count

    StudyStore.flush = timed(StudyStore.flush)  # type: ignore[method-assign]
    TrialCache.add = counted(TrialCache.add)  # type: ignore[method-assign]
    sys.argv = ["bbam-ray", "tune", "--name", "long", "--results", str(folder / "results")]
    sys.argv += ["--num-samples", str(trials), "--folds", str(folds), "--quiet"]
    sys.argv += ["--epochs", "3", "--warmup-epochs", "1", "--confirm-seeds", "0"]
    sys.argv += ["--no-dashboard", "--no-reuse", "--sampler", "random"]
    for name, value in TINY.items():
        sys.argv += ["--set", f"{name}={value}"]
    main()


def _sample(folder: Path, seconds: list[float]) -> Sample:
    """What this process, its children and its folders use; ``seconds``: of the last flushes."""
    process = psutil.Process()
    study = folder / "results" / "digits" / "long"
    checkpoints = folder_bytes(study / "checkpoints")
    return {
        "driver_MB": process.memory_info().rss / _MB,
        "flush_ms": 1000 * sum(seconds) / len(seconds),
        "slowest_flush_ms": 1000 * max(seconds),
        "open_files": process.num_fds(),
        "threads": process.num_threads(),
        "processes": len(process.children(recursive=True)),
        "parts": len(list((study / "parts").rglob("*.parquet"))),
        "tables_MB": (folder_bytes(study) - checkpoints) / _MB,
        "checkpoints_MB": checkpoints / _MB,
        "ray_MB": folder_bytes(folder / "r") / _MB,
        "temporary_MB": folder_bytes(folder / "t") / _MB,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=MOMENTS[-1], help="number of trials")
    parser.add_argument("--folds", type=int, default=1, help="folds of each trial")
    parser.add_argument("--prefix", default="", help="of the names of the rows")
    parser.add_argument("--store", type=Path, default=STORE, metavar="FILE")
    parser.add_argument("--write", type=Path, metavar="FILE")
    parser.add_argument("--driver", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.driver:
        driver(arguments.driver, arguments.trials, arguments.folds)
        return
    rows = run(arguments.trials, arguments.folds, arguments.prefix)
    append(rows, 0, arguments.store)
    text = table(arguments.store)
    print(text)
    if arguments.write:
        write_section(arguments.write, "chaos", text)


if __name__ == "__main__":
    main()
