"""What a search pays: the final answer against the published settings, the best baseline and the old rule.

    python -m benchmarks.regret --data DATA --results FOLDER [--sets scene,emotions] [--methods bbam]
        [--seeds 0,1,2,3,4] [--budgets 8,16,32]
    python -m benchmarks.regret --table [--write docs/regret.md]

DATA holds ``mulan/NAME`` and ``corel5k/features.parquet``; digits need nothing. Every study seed draws
its own labelled samples (10 %, digits 5 %) and searches them twice: with the rule of this version (folds,
out-of-fold scores, ensemble with baselines), and with the old one (one validation set, the best epoch of
the best trial, a single model, thresholds of that epoch). A larger budget resumes the search of the
smaller one. Rows are added to ``benchmarks/regret.parquet``; a cell that is there already is not run.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from bbam_ray import tune_study
from bbam_ray.core.calibration import Calibration
from bbam_ray.engine.confirm import CALIBRATION_ERROR, confirmation_config, measure_test_metrics
from bbam_ray.engine.confirm import train as train_model
from bbam_ray.results.loading import Study
from benchmarks.regret_table import write_tables
from benchmarks.stored_cells import (
    Values,
    cell_parser,
    measure_missing,
    read_cells,
    whole_numbers,
)

STORE = Path(__file__).with_name("regret.parquet")
SETS = ("scene", "yeast", "emotions", "corel5k", "digits")
METHODS = ("bbam", "cap", "supervised")
NEW, OLD = "folds", "one fold"


def task_of(name: str, data: Path) -> Values:
    """Arguments of ``tune_study`` for a data set."""
    if name == "digits":
        return {"dataset": "digits"}
    folder = data / "corel5k" / "features.parquet" if name == "corel5k" else data / "mulan" / name
    return {"dataset": "features", "data_dir": folder, "labeled_fraction": 0.1}


def epochs_spent(study: Study) -> int:
    """Epochs that trials have trained, over all folds."""
    return len(study.folds) if len(study.folds) else len(study.history)


def new_rule(search: Callable[..., Study]) -> Values:
    """The values of the final answer of a search with the rule of this version."""
    study = search(confirm_seeds=1)
    rows = study.confirm[study.confirm["rank"].notna()].set_index("answer")
    final = rows.loc["final"]
    baselines = rows[rows["number"] < 0]["test_map"]
    return {
        "epochs": epochs_spent(study),
        "test_map": final["test_map"],
        "test_micro_f1": final["test_micro_f1"],
        "calibration_error": final[CALIBRATION_ERROR],
        "networks": final["networks"],
        "published_map": rows.loc["published"]["test_map"],
        **{f"{answer}_map": value for answer, value in baselines.items()},
        "chosen": study.record["chosen"],
        "kept": study.trials.set_index("number").loc[study.record["chosen"]]["kept"],
    }


def old_rule(search: Callable[..., Study]) -> Values:
    """The values of the single model of a search with the old rule."""
    study = search(
        settings={"keep": "best"}, folds=1, final="single", baselines=False, confirm_seeds=0
    )
    seed = study.record["settings"]["seed"]
    best = study.trials[study.trials["state"] == "COMPLETE"].iloc[0]  # the best come first
    labels = study.labels[
        (study.labels["number"] == best["number"]) & (study.labels["epoch"] == best["best_epoch"])
    ].set_index("label")
    columns: Values = {str(name): value for name, value in best.items()}
    parameters = {k[6:]: v for k, v in columns.items() if k.startswith("param_") and pd.notna(v)}
    # to Python's own types, from NumPy's
    parameters = {k: v.item() if isinstance(v, np.generic) else v for k, v in parameters.items()}
    settings = {**study.record["settings"], "split_seed": seed}
    config = confirmation_config(settings, parameters, seed, None, same_pool=True)
    torch.set_num_threads(1)
    trainer = train_model(config, None)
    thresholds = labels.loc[list(trainer.data.label_names)]["threshold"].tolist()
    plain = torch.ones(len(thresholds), dtype=torch.float64)
    metrics = measure_test_metrics(trainer, thresholds, Calibration(plain, 0 * plain))
    return {
        "epochs": epochs_spent(study),
        "test_map": metrics["test_map"],
        "test_micro_f1": metrics["test_micro_f1"],
        "calibration_error": metrics[CALIBRATION_ERROR],
        "networks": 1,
        "chosen": best["number"],
    }


def cells(arguments: argparse.Namespace) -> Iterator[Values]:
    """Set, method, study seed, budget and rule of everything to run, seeds outermost."""
    for seed in arguments.seeds:
        for name in arguments.sets:
            for method in arguments.methods:
                for rule in arguments.rules:
                    for budget in arguments.budgets:
                        cell = {"set": name, "method": method, "seed": seed, "budget": budget}
                        yield {**cell, "rule": rule}


def measure(cell: Values, data: Path, results: Path) -> Values:
    """Run the search of a cell; a larger budget resumes the one of a smaller."""
    name, method, seed, rule = (cell[key] for key in ("set", "method", "seed", "rule"))
    task = task_of(name, data)
    study_name = f"{name}-{method}-{seed}" + ("" if rule == NEW else "-old")
    search = partial(
        tune_study,
        **task,
        method=method,
        seed=seed,
        num_samples=cell["budget"],
        results=results,
        name=study_name,
        resume=(results / task["dataset"] / study_name).exists(),
        dashboard=False,
        quiet=True,
    )
    return new_rule(search) if rule == NEW else old_rule(search)


def main() -> None:
    parser = cell_parser(__doc__, range(5), sets=SETS, methods=METHODS, rules=(NEW, OLD))
    parser.add_argument("--results", type=Path, default=Path("results/regret"))
    parser.add_argument("--budgets", type=whole_numbers, default=[8, 16, 32])
    parser.add_argument("--write-short", type=Path, metavar="FILE", help="the table of README.md")
    arguments = parser.parse_args()
    if not arguments.table:
        data, results = arguments.data.absolute(), arguments.results.absolute()
        measure_missing(STORE, cells(arguments), lambda cell: measure(cell, data, results))
    write_tables(read_cells(STORE), arguments.write, arguments.write_short)


if __name__ == "__main__":
    main()
