"""Linear models of photographs that start from logistic regression: which steps help, and which harm.

    python -m benchmarks.linear_start --data DATA [--seeds 10,11,12] [--variants main,main-5-negatives]
    python -m benchmarks.linear_start --table [--write docs/methods.md]

Settings were chosen with it, so it never reads the test part: of the training photographs of
``corel5k/features.parquet``, 500 are drawn once as test samples, and 450 of the others are labelled. Rows
are added to ``benchmarks/linear_start.parquet``; a cell that is there already is not run.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from bbam_ray.engine.fitted_trainer import make_trainer
from bbam_ray.engine.task import load_part, prepare_training
from bbam_ray.methods import run_config
from benchmarks.harm import published, test_map
from benchmarks.page import write_section
from benchmarks.regret_table import interval
from benchmarks.stored_cells import Values, cell_parser, measure_missing, read_cells

STORE = Path(__file__).with_name("linear_start.parquet")
HELD_OUT = 500
BASELINE = "logistic"
_LINEAR = {"backbone": "identity", "projector": "none", "head_init": "logistic"}
_SMALL = {"learning_rate": 2e-5, "warmup_learning_rate": 2e-5}
_GRAPH = {"graph_neighbors": 20, "unlabeled_weight": 1, "positive_keep": 0.8}
_MAIN = {**_LINEAR, **_SMALL, **_GRAPH, "negative_ratio": None}


def _warmup(rate: float, method: str = "bbam", **settings: Any) -> Values:
    return {
        "method": method,
        **_LINEAR,
        **settings,
        "epochs": 12,
        "warmup_epochs": 12,
        "warmup_learning_rate": rate,
    }


#: what is trained, by name: settings that differ from the published ones
VARIANTS: dict[str, Values] = {
    BASELINE: {"method": "logistic"},
    "logistic+propagation": {"method": "logistic+propagation"},
    "warm-up, rate 2e-5": _warmup(2e-5),
    "warm-up, rate 2e-4": _warmup(2e-4),
    "warm-up, rate 1e-3": _warmup(1e-3),
    "warm-up of cap, rate 2e-5": _warmup(2e-5, "cap", scale=8),
    "main": _MAIN,
    "main, rate 1e-4": {**_MAIN, "learning_rate": 1e-4},
    "main, 5 negatives": {**_MAIN, "negative_ratio": 5},
    "main, rates 1e-3, 5 negatives": {**_LINEAR, **_GRAPH},
    "main, graph weight 3": {**_MAIN, "graph_weight": 3},
    "main, 50 neighbours": {**_MAIN, "graph_neighbors": 50, "graph_alpha": 0.99},
    "main, confidence weights": {**_MAIN, "pseudo_label_weight": "confidence"},
    "main, no balance": {**_MAIN, "balance": False},
    "main, margin 0.8": {**_MAIN, "margin": 0.8},
    "main, MLP": {"negative_ratio": None},
}


def divided(source: Path, target: Path) -> None:
    """Write the training photographs of a table, 500 of them as test samples."""
    table = pq.read_table(source)
    table = table.filter(pc.equal(table["split"], "train"))
    is_test = np.zeros(len(table), dtype=bool)
    is_test[np.random.default_rng(0).permutation(len(table))[:HELD_OUT]] = True
    column = table.schema.get_field_index("split")
    split = pa.array(np.where(is_test, "test", "train"))
    pq.write_table(table.set_column(column, "split", split), target)


def measure(variant: str, seed: int, features: Path, **changes: Any) -> Values:
    """mAP on the held-out photographs after the last epoch."""
    changed = VARIANTS[variant] | changes
    config = run_config(
        {
            **published("features", changed.get("method", "bbam")),
            "dataset": "features",
            "data_dir": str(features),
            "labeled_fraction": 0.1125,
            "validation_fraction": 0.0,
            "seed": seed,
            "device": "cpu",
            "keep": "last",
            **changed,
        },
        "benchmark",
    )
    trainer = make_trainer(config, *prepare_training(config))
    while not trainer.finished:
        trainer.run_epoch()
    return {"map": test_map(trainer, load_part(config, "test"))}


def table(data: pd.DataFrame) -> str:
    """A row per variant; differences from logistic regression in points, paired by seed."""
    lines = ["| trained | seeds | mAP | - logistic regression |", "|---|---|---|---|"]
    wide = data.pivot(index="seed", columns="variant", values="map")
    for variant in VARIANTS:
        if variant in wide:
            values = wide[variant].dropna()
            difference = ""
            if variant != BASELINE:
                difference = interval((wide[variant] - wide[BASELINE]).dropna())
            lines.append(f"| {variant} | {len(values)} | {values.mean():.3f} | {difference} |")
    return "\n".join(lines)


def main() -> None:
    arguments = cell_parser(__doc__, (10, 11, 12), variants=VARIANTS).parse_args()
    torch.set_num_threads(1)
    if not arguments.table:
        with TemporaryDirectory() as folder:
            features = Path(folder) / "features.parquet"
            divided(arguments.data / "corel5k" / "features.parquet", features)
            cells = [
                {"variant": variant, "seed": seed}
                for seed in arguments.seeds
                for variant in dict.fromkeys([BASELINE, *arguments.variants])
            ]
            measure_missing(
                STORE, cells, lambda cell: measure(cell["variant"], cell["seed"], features)
            )
    rows = read_cells(STORE)
    print(table(rows))
    if arguments.write:
        write_section(arguments.write, "linear-start", table(rows))


if __name__ == "__main__":
    main()
