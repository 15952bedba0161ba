"""Does the main phase do harm? Test mAP of the kept weights against the end of the warm-up.

    python -m benchmarks.harm --data DATA [--sets scene,emotions] [--methods bbam,cap] [--seeds 0,1,2]
    python -m benchmarks.harm --table [--write docs/regret.md]

For each data set, method and seed, the published settings are trained on the folds of the labelled
samples, as a trial of a search is. Every fold is measured on the test part at three points: the end of the
warm-up, the last epoch, and the weights that the rule of this version keeps, which sees validation scores
only. Rows are added to ``benchmarks/harm.parquet``; a cell that is there already is not run.
"""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from bbam_ray.core.metrics import average_precision
from bbam_ray.data import Samples
from bbam_ray.documents import read_yaml_mapping
from bbam_ray.engine.task import Task, check_task, load_part, prepare_training
from bbam_ray.engine.trainer import Trainer
from bbam_ray.methods import BASELINES, METHODS, run_config
from bbam_ray.results.fold_rows import RowsByFold, kept_phase
from benchmarks.page import write_section
from benchmarks.regret import SETS, task_of
from benchmarks.regret_table import interval
from benchmarks.stored_cells import cell_parser, measure_missing, read_cells

STORE = Path(__file__).with_name("harm.parquet")
FOLDS = 5


def published(dataset: str, method: str) -> dict[str, Any]:
    """The published settings of a search space."""
    spaces = Path(__file__).parents[1] / "search_spaces"
    names = [f"{dataset}.{method}.yaml", f"{method}.yaml"]
    if method == "bbam":
        names = [f"{dataset}.yaml"]
    path = next(spaces / name for name in names if (spaces / name).exists())
    space = read_yaml_mapping(path)
    return {**(space.get("fixed") or {}), **space["published"]}


def test_map(trainer: Trainer, test: Samples) -> float:
    """Mean average precision of the averaged model on the test part."""
    logits: Tensor = trainer.score(test.inputs, np.arange(len(test.inputs)))
    return float(average_precision(logits, torch.from_numpy(test.labels)).nanmean())


def measure(name: str, method: str, seed: int, data: Path) -> dict[str, Any]:
    """Means over folds of the test mAP at the three points, and what was kept."""
    task = dict(task_of(name, data))
    values = {
        **published(task["dataset"], method),
        **{key: str(v) if isinstance(v, Path) else v for key, v in task.items()},
        "method": method,
        "seed": seed,
        "folds": FOLDS,
    }
    samples, test = None, None
    histories: RowsByFold = {}
    warmup, last = [], []
    for fold in range(FOLDS):
        config = run_config({**values, "fold": fold}, "benchmark")
        checked: Task = check_task(config, samples)
        samples = checked.samples
        test = test or load_part(config, "test")
        trainer = Trainer(config, *prepare_training(config, checked))
        histories[fold] = []
        while not trainer.finished:
            histories[fold].append(trainer.run_epoch().scalars)
        last.append(test_map(trainer, test))
        with trainer.using(trainer.weight_choice.fallback):
            warmup.append(test_map(trainer, test))
    phase = kept_phase(histories, "phase")
    return {
        "warmup_map": fmean(warmup),
        "last_map": fmean(last),
        "kept_map": fmean(warmup if phase == "warmup" else last),
        "kept": phase,
        "epochs": sum(len(rows) for rows in histories.values()),
    }


def table(data: pd.DataFrame) -> str:
    """A row per set and method: means over seeds, in points."""
    lines = [
        "| set | method | seeds | end of warm-up | last epoch - warm-up | kept - warm-up "
        "| main phase kept |",
        "|---" * 7 + "|",
    ]
    groups: Any = data.groupby(["set", "method"], sort=False)
    for (name, method), rows in groups:
        cells = [name, f"`{method}`", str(len(rows)), f"{rows['warmup_map'].mean():.3f}"]
        cells.append(interval(rows["last_map"] - rows["warmup_map"]))
        cells.append(interval(rows["kept_map"] - rows["warmup_map"]))
        cells.append(f"{(rows['kept'] == 'last').sum()} of {len(rows)}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    methods = [m for m in METHODS if m not in BASELINES and m != "supervised"]
    parser = cell_parser(__doc__, (0, 1, 2), sets=SETS, methods=methods)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cells = [
        {"set": name, "method": method, "seed": seed}
        for seed in arguments.seeds
        for name in arguments.sets
        for method in arguments.methods
    ]
    if not arguments.table:
        data = arguments.data.absolute()
        measure_missing(
            STORE, cells, lambda cell: measure(cell["set"], cell["method"], cell["seed"], data)
        )
    rows = read_cells(STORE)
    print(table(rows))
    if arguments.write:
        write_section(arguments.write, "harm", table(rows))


if __name__ == "__main__":
    main()
