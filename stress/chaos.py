"""Inject faults into small studies and count the damage; fuzz the readers; run for a long time.

    python -m stress.chaos [--faults 120] [--cases 10000] [--minutes 30] [--seed 0] [--concurrency 2]
                           [--kinds WORDS] [--store FILE] [--write stress/README.md]
    python -m stress.chaos --table [--write stress/README.md]

Takes about an hour and a half on two CPUs. Needs the right to mount a file system, and Slurm; without them
these faults are skipped, and the table reports this.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from bbam_ray.errors import UsageError
from benchmarks.page import write_section
from stress import fuzz, soak
from stress.chaos_results import STORE, append, table
from stress.faults import (
    DISK_FAULTS,
    FILE_FAULTS,
    FILE_FAULTS_AFTER_END,
    PROCESS_FAULTS,
    Fault,
)
from stress.scenarios import Scenarios, Tally
from stress.slurm_jobs import SLURM_FAULTS
from stress.start_faults import START_FAULTS, StartFault
from stress.study_process import LIMIT_S

_FAULTS_PER_STUDY = 3
_RUNNING = (*PROCESS_FAULTS, *FILE_FAULTS, *DISK_FAULTS)


def plan(faults: int, seed: int, words: str = "") -> list[list[Fault]]:
    """Draw faults of running studies and group them by study.

    Args:
        faults: number of faults; all kinds occur equally often.
        seed: of the order.
        words: only faults whose name contains this text.

    Returns:
        A few faults for each study, which need the same command, workers and disk.
    """
    rng = random.Random(seed)
    kinds = [fault for fault in _RUNNING if words in fault.name]
    drawn = [kinds[number % len(kinds)] for number in range(faults if kinds else 0)]
    rng.shuffle(drawn)
    groups: list[list[Fault]] = []
    for needs in sorted({(f.workers, f.command, f.disk) for f in drawn}):
        alike = [f for f in drawn if (f.workers, f.command, f.disk) == needs]
        groups += [
            alike[n : n + _FAULTS_PER_STUDY] for n in range(0, len(alike), _FAULTS_PER_STUDY)
        ]
    return groups


def plan_starts(faults: int, words: str = "") -> list[tuple[StartFault, str, int]]:
    """Workers that cannot start: the fault, the command and its number of workers, in turn."""
    kinds = [fault for fault in START_FAULTS if words in fault.name]
    commands = (("tune", 1), ("train", 2), ("tune", 2))
    return [
        (kinds[n % len(kinds)], *commands[(n + n // len(kinds)) % len(commands)])
        for n in range(faults if kinds else 0)
    ]


class Shares(NamedTuple):
    """Number of faults of running studies, of starts, after the end, of nodes, and of jobs of Slurm."""

    running: int
    starts: int = 0
    after_end: int = 0
    nodes: int = 0
    jobs: int = 0


def shares(faults: int, words: str) -> Shares:
    """Divide a number of faults.

    Raises:
        UsageError: no fault has these words.
    """
    if not words:
        few = max(1, faults // 20)
        rest = Shares(0, faults // 8, faults // 4, few, few)
        return rest._replace(running=faults - sum(rest))
    running, starting, of_jobs = (
        sum(words in fault.name for fault in kinds)
        for kinds in (_RUNNING, START_FAULTS, SLURM_FAULTS)
    )
    if not (total := running + starting + of_jobs):
        raise UsageError(
            f"--kinds '{words}': no fault of a start, a running study or a job has these words"
        )
    starts, jobs = round(faults * starting / total), round(faults * of_jobs / total)
    return Shares(faults - starts - jobs, starts, jobs=jobs)


def run(
    faults: int, seed: int, folder: Path, concurrency: int = 2, words: str = ""
) -> dict[str, Tally]:
    """Inject faults into running studies, and some others.

    A quarter comes after the end of a study, an eighth at its start, a twentieth hits nodes, another one
    jobs of Slurm.

    Args:
        faults: number of faults.
        seed: of all random choices.
        folder: an empty folder.
        concurrency: number of concurrent studies.
        words: only faults of starts, running studies and jobs whose name contains this text; "" for all.

    Returns:
        Name of each fault to its results.
    """
    os.environ["BBAM_RAY_CACHE"] = str(folder / "cache")
    scenarios = Scenarios(folder, seed)
    parts = shares(faults, words)
    groups, starts = plan(parts.running, seed, words), plan_starts(parts.starts, words)
    jobs = [fault for fault in SLURM_FAULTS if words in fault.name]
    keys = {(f.command, f.workers) for group in groups for f in group}
    if parts.after_end + parts.jobs:
        keys.add(("tune", 1))  # the study whose files are damaged, or that is a job
    for key in sorted({*keys, *((command, n) for _, command, n in starts)}):
        scenarios.reference(*key)
    kinds = [FILE_FAULTS_AFTER_END[n % len(FILE_FAULTS_AFTER_END)] for n in range(parts.after_end)]
    with ThreadPoolExecutor(concurrency) as pool:  # the threads mostly wait
        list(pool.map(scenarios.while_running, groups))
        list(pool.map(scenarios.after_end, kinds))
        list(pool.map(scenarios.cannot_start, *zip(*starts, strict=True)) if starts else ())
    for first in range(0, parts.nodes, 2):
        scenarios.lost_nodes(min(2, parts.nodes - first))
    scenarios.of_jobs([jobs[n % len(jobs)] for n in range(parts.jobs)])
    scenarios.finish()
    return scenarios.tallies


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--faults", type=int, default=120, help="number of faults")
    parser.add_argument("--cases", type=int, default=10_000, help="number of fuzzed inputs")
    parser.add_argument("--minutes", type=float, default=30.0, help="of the long runs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--concurrency", type=int, default=2, help="number of concurrent studies")
    parser.add_argument(
        "--kinds", default="", metavar="WORDS", help="only faults with this text, e.g. 'read-only'"
    )
    parser.add_argument("--table", action="store_true", help="measure nothing")
    parser.add_argument("--store", type=Path, default=STORE, metavar="FILE")
    parser.add_argument("--write", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    seed, store = arguments.seed, arguments.store
    if not arguments.table:
        try:
            shares(1, arguments.kinds)
        except UsageError as error:
            parser.error(str(error))
        if arguments.faults:
            started = time.monotonic()
            with tempfile.TemporaryDirectory() as name:
                tallies = run(
                    arguments.faults, seed, Path(name), arguments.concurrency, arguments.kinds
                )
            append([("fault", kind, vars(tally)) for kind, tally in tallies.items()], seed, store)
            minutes = (time.monotonic() - started) / 60
            print(f"{minutes:.0f} minutes; limit of each command: {LIMIT_S:g} s", flush=True)
        if arguments.cases:
            counts = fuzz.run(arguments.cases, seed)
            append([("fuzz", reader.reader, vars(reader)) for reader in counts], seed, store)
        if arguments.minutes:
            append(soak.run(arguments.minutes), seed, store)
    text = table(store)
    print(text)
    if arguments.write:
        write_section(arguments.write, "chaos", text)


if __name__ == "__main__":
    main()
