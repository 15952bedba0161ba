"""Studies in one process with one Ray, for test_search_rules.py: prints the events of each as JSON."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import ray

from bbam_ray.commands.choices import TrialRunner
from bbam_ray.commands.search_rules import SearchRules
from bbam_ray.commands.study_plan import make_plan
from bbam_ray.commands.study_record import open_study
from bbam_ray.engine.split_file import NamedSplit
from bbam_ray.results.study import check_folder, source_folder
from bbam_ray.scale.cluster import connection as cluster
from bbam_ray.scale.study.events import EpochDone, Event
from bbam_ray.scale.study.run import run_study
from bbam_ray.scale.workers.shapes import TrainShape

ROOT = Path(__file__).parents[2]
TINY = {"scenes": 100, "test_scenes": 40, "labeled_fraction": 0.5, "warmup_passes": 1}
TINY |= {"hidden_dim": 16, "feature_dim": 8, "epochs": 8, "warmup_epochs": 2}
RULES: dict[str, Any] = {
    "reduction_factor": 2,
    "reuse": False,
    "confirm_seeds": 0,
    "folds": 1,
    "num_samples": 6,
    "max_concurrent": 2,
}


def study(name: str, gpus: float = 0.0, space: Path | None = None, **changes: Any) -> int:
    """Run or resume a study and print how it ended; returns the number of its last trial."""
    results = Path(sys.argv[1])
    resume = (results / "digits" / name).exists()
    folder = check_folder(results, "digits", name, resume=resume)
    if "warm_start" in changes:
        changes["warm_start"] = source_folder(changes["warm_start"], folder)
    rules = SearchRules(**{**RULES, **changes})
    shape = TrainShape(1, 1, 1, gpus, timeout_s=60.0, max_failures=0)
    path = space or ROOT / "search_spaces" / "digits.yaml"
    base = {"dataset": "digits", "method": "bbam", "seed": 0, "device": "cpu", **TINY}
    plan, task = make_plan(base, path, shape, rules, runner=TrialRunner.gang, local=False)
    record, plan = open_study(folder, plan, path, NamedSplit.of(task), resume=resume)
    events: list[tuple[str, int]] = []
    again: list[int] = []  # trials of the epochs that were not trained again

    def listen(event: Event) -> None:
        events.append((type(event).__name__, getattr(event, "number", -1)))
        if isinstance(event, EpochDone) and event.again:
            again.append(event.number)

    result = run_study(plan, record, listen)
    summary = {
        "name": name,
        "status": result.status,
        "out_of_budget": result.out_of_budget,
        "events": events,
        "again": again,
    }
    print("SUMMARY" + json.dumps(summary), flush=True)
    return max((row["number"] for row in result.trials), default=-1)


def main() -> None:
    os.environ.update(cluster._SETTINGS)
    # Two GPUs that do not exist: budgets in GPU-hours count the resources that trials hold.
    ray.init(address="local", num_cpus=2, num_gpus=2, include_dashboard=False, log_to_driver=False)
    study("plain", num_samples=8)
    study("asha", scheduler="asha", num_samples=12)
    study("again", reuse=True, num_samples=8)
    study("cut", scheduler="asha", num_samples=12, reuse=True)
    study("wider", space=Path(sys.argv[2]), warm_start="plain", num_samples=2)
    study("two", space=Path(sys.argv[3]), num_samples=4)
    study(
        "poor",
        gpus=1.0,
        num_samples=30,
        max_cost=float(sys.argv[4]),
        price=3600.0,
        max_concurrent=1,
    )
    study("folded", num_samples=4, folds=3)
    last = study("folded-late", num_samples=200, folds=3, time_budget=6.0)
    study("folded-late", num_samples=max(4, last + 1), folds=3)
    last = study("late", num_samples=200, time_budget=6.0)
    study("late", num_samples=max(8, last + 1))  # with all that were cut off
    ray.shutdown()


if __name__ == "__main__":
    main()
