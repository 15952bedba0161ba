"""What a search costs in addition to training: a thousand idle trials, and the time between trials.

    python -m benchmarks.overhead [--trials 1000] [--write benchmarks/README.md]

The trials use all parts of a search: Optuna, Ray Tune, the store. Takes about four minutes on two CPUs.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from bbam_ray.commands.choices import TrialRunner
from bbam_ray.commands.search_rules import SearchRules
from bbam_ray.commands.study_plan import make_plan
from bbam_ray.commands.study_record import open_study
from bbam_ray.core.metric_names import METRIC_NAMES
from bbam_ray.engine.split_file import NamedSplit
from bbam_ray.engine.task import Task
from bbam_ray.engine.trainer import EpochRecord
from bbam_ray.results.store import read_table
from bbam_ray.scale.cluster.connection import connected
from bbam_ray.scale.study.events import EpochDone, Event, TrialEnded, TrialStarted
from bbam_ray.scale.study.plan import StudyPlan
from bbam_ray.scale.study.run import run_study
from bbam_ray.scale.workers.shapes import TrainShape
from bbam_ray.scale.workers.trial import Trial
from benchmarks.page import hardware, write_section

ROOT = Path(__file__).parents[1]
SPACE = ROOT / "search_spaces" / "digits.yaml"
TINY = {"scenes": 120, "test_scenes": 40, "labeled_fraction": 0.4, "epochs": 2, "warmup_epochs": 1}
TINY |= {"warmup_passes": 1, "hidden_dim": 16, "feature_dim": 8}
EARLY = 200


class IdleTrial(Trial):
    """A trial that ends after its first epoch, whose metrics are invented."""

    def setup(self, config: dict[str, Any]) -> None:
        self._config = config

    def step(self) -> dict[str, Any]:
        margin = self._config["parameters"]["margin"]
        metrics = {f"val_{name}": 1 - abs(margin - 0.3) for name in METRIC_NAMES}
        seconds = {f"seconds_{part}": 0.0 for part in ("refresh", "train", "evaluate")}
        columns = ("prior", "val_ap", "threshold", "vdfd")
        return {
            "epoch": 1,
            "fold": 0,
            "fold_result": None,
            "record": EpochRecord(
                {"epoch": 1, "phase": "warmup", "loss": 1.0, **metrics, **seconds},
                {name: [0.5] * 10 for name in columns},
            ),
            "finished": True,
            "stopped_early": False,
            "again": False,
            "done": True,
        }


def make(
    trials: int, workers: int, concurrency: int, settings: dict[str, Any]
) -> tuple[StudyPlan, Task]:
    """The plan of a search with the space of digits."""
    rules = SearchRules(
        reuse=False, confirm_top=0, confirm_seeds=0, num_samples=trials, max_concurrent=concurrency
    )
    shape = TrainShape(workers, workers, 1, 0.0, timeout_s=60.0, max_failures=0)
    base = {"dataset": "digits", "method": "bbam", "seed": 0, **settings}
    return make_plan(base, SPACE, shape, rules, runner=TrialRunner.gang, local=True)


class Clock:
    """A listener of a study: records when trials start, report and end, and the driver's memory."""

    def __init__(self) -> None:
        self.ended: list[float] = []
        self.first_reports: list[float] = []
        self.memory: dict[int, int] = {}
        self._reported: set[int] = set()
        self.began = time.monotonic()

    def __call__(self, event: Event) -> None:
        now = time.monotonic()
        if isinstance(event, TrialStarted) and not self.ended:
            self.began = min(self.began, now)
        if isinstance(event, EpochDone) and event.number not in self._reported:
            self._reported.add(event.number)
            seconds = sum(event.row[f"seconds_{p}"] for p in ("refresh", "train", "evaluate"))
            self.first_reports.append(now - seconds)
        if isinstance(event, TrialEnded):
            self.ended.append(now)
            if len(self.ended) % 100 == 0:
                gc.collect()
                self.memory[len(self.ended)] = psutil.Process().memory_info().rss


def idle(trials: int) -> list[str]:
    """Overhead of a trial, its growth, and the memory of the driver."""
    (plan, task), clock = make(trials, 1, 1, TINY), Clock()
    with tempfile.TemporaryDirectory() as name, connected("local", dashboard=False):
        split = NamedSplit.of(task)
        record, plan = open_study(Path(name) / "idle", plan, SPACE, split, resume=False)
        run_study(plan, record, clock, trainable=IdleTrial)
        tables = {
            t: read_table(record.folder / f"{t}.parquet").num_rows for t in ("trials", "labels")
        }
    assert tables == {"trials": trials, "labels": 10 * trials}, tables
    gaps = [b - a for a, b in zip(clock.ended, clock.ended[1:], strict=False)]
    early, last = min(EARLY, trials // 2), max(clock.memory)
    mean = (clock.ended[-1] - clock.ended[0]) / (trials - 1)
    grown = (clock.memory[last] - clock.memory[early // 100 * 100 or 100]) / 1e6
    return [
        f"| {trials} idle trials: mean seconds per trial | {mean:.3f} |",
        f"| the same, median of the first and the last {early} | {median(gaps[:early]):.3f}, "
        f"{median(gaps[-early:]):.3f} |",
        f"| driver's memory grows from trial {early} to {last} by | {grown:.0f} MB |",
    ]


def following(workers: int, trials: int = 6) -> str:
    """Seconds from the end of a trial to the start of the next one's first epoch, real training."""
    (plan, task), clock = make(trials, workers, 1, TINY), Clock()
    with tempfile.TemporaryDirectory() as name, connected("local", dashboard=False):
        split = NamedSplit.of(task)
        record, plan = open_study(Path(name) / "real", plan, SPACE, split, resume=False)
        run_study(plan, record, clock)
    gaps = [start - end for end, start in zip(clock.ended, clock.first_reports[1:], strict=False)]
    kind = "one worker" if workers == 1 else f"a gang of {workers}"
    return (
        f"| time until the next trial trains, {kind} (median, worst of {len(gaps)}) | "
        f"{median(gaps):.2f} s, {max(gaps):.2f} s |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--write", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    lines = ["| | |", "|---|---|"]
    lines += idle(arguments.trials)
    lines += [following(workers) for workers in (1, 2)]
    text = "\n".join([*lines, "", hardware()])
    print(text)
    if arguments.write:
        write_section(arguments.write, "overhead", text)


if __name__ == "__main__":
    main()
