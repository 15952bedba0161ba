"""What thresholds and weights of pseudo-labels from validation samples are worth in test mAP.

    python -m benchmarks.pseudo_label_options --data DATA [--sets scene,emotions] [--seeds 0,1,2]
    python -m benchmarks.pseudo_label_options --table [--write docs/methods.md]

Published settings of each method, 30 % of the labelled samples for validation, the model of the last
epoch, several choices of ``pseudo_labels`` and ``pseudo_label_weight``. Rows are added to
``benchmarks/pseudo_label_options.parquet``; a cell that is there already is not run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import torch

from bbam_ray.engine.task import load_part, prepare_training
from bbam_ray.engine.trainer import Trainer
from bbam_ray.methods import run_config
from benchmarks.harm import published, test_map
from benchmarks.page import write_section
from benchmarks.regret import task_of
from benchmarks.regret_table import interval
from benchmarks.stored_cells import Values, cell_parser, measure_missing, read_cells

STORE = Path(__file__).with_name("pseudo_label_options.parquet")
PLAIN = ("frequency", "none")
CHOICES = (
    PLAIN,
    ("metric", "none"),
    ("metric, beta 1", "none"),
    ("midrange", "none"),
    ("frequency", "confidence"),
    ("frequency", "measured"),
    ("metric", "measured"),
    ("midrange", "measured"),
)

#: the only choice of a method that is defined by it
OWN = {"d2l": ("metric", "none"), "dicap": ("midrange", "measured")}


def measure(name: str, method: str, choice: tuple[str, str], seed: int, data: Path) -> Any:
    """Test mAP after the last epoch and at the end of the warm-up, and what pseudo-labels were like."""
    task = task_of(name, data)
    labels, _, beta = choice[0].partition(", beta ")
    config = run_config(
        {
            **published(task["dataset"], method),
            **{key: str(v) if isinstance(v, Path) else v for key, v in task.items()},
            "method": method,
            "seed": seed,
            "validation_fraction": 0.3,
            "device": "cpu",
            "keep": "last",
            "pseudo_labels": labels,
            **({"threshold_beta": float(beta)} if beta else {}),
            "pseudo_label_weight": choice[1],
        },
        "benchmark",
    )
    trainer, test = Trainer(config, *prepare_training(config)), load_part(config, "test")
    warmup, record, own = 0.0, None, 0.0
    while trainer.epoch < config.training.epochs:
        record = trainer.run_epoch()
        own = sum(v == v for v in record.labels.get("pseudo_threshold_positive", []))
        if trainer.epoch == config.training.warmup_epochs:
            warmup = test_map(trainer, test)
    assert record is not None
    return {
        "warmup_map": warmup,
        "last_map": test_map(trainer, test),
        "labels_with_threshold": own,
        **{key: record.scalars.get(key) for key in ("pseudo_positives", "pseudo_precision")},
    }


def table(data: pd.DataFrame) -> str:
    """A row per set, method and choice: means over seeds, and paired differences in points."""
    lines = [
        "| set | method | `pseudo_labels` | `pseudo_label_weight` | seeds | test mAP | - published "
        "| precision |",
        "|---" * 8 + "|",
    ]
    groups: Any = data.groupby(["set", "method"], sort=False)
    for (name, method), rows in groups:
        wide = rows.pivot(index="seed", columns=["labels", "weight"], values="last_map")
        for labels, weight in CHOICES:
            if (labels, weight) not in wide:
                continue
            of_choice = rows[(rows["labels"] == labels) & (rows["weight"] == weight)]
            mean = of_choice["last_map"].mean()
            difference = ""
            if (labels, weight) != PLAIN and PLAIN in wide:
                difference = interval((wide[(labels, weight)] - wide[PLAIN]).dropna())
            precision = f"{of_choice['pseudo_precision'].mean():.2f}"
            cells = [name, f"`{method}`", labels, weight, str(len(of_choice)), f"{mean:.3f}"]
            lines.append("| " + " | ".join([*cells, difference, precision]) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = cell_parser(
        __doc__,
        range(5),
        sets=("scene", "emotions", "digits"),
        methods=("bbam", "cap", "d2l", "dicap"),
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cells = [
        {"set": name, "method": method, "labels": choice[0], "weight": choice[1], "seed": seed}
        for name in arguments.sets
        for seed in arguments.seeds
        for method in arguments.methods
        for choice in CHOICES
        if choice == OWN.get(method, choice)
    ]
    data = arguments.data.absolute()

    def measured(cell: Values) -> Values:
        choice = cell["labels"], cell["weight"]
        values: Values = measure(cell["set"], cell["method"], choice, cell["seed"], data)
        return values

    if not arguments.table:
        measure_missing(STORE, cells, measured)
    rows = read_cells(STORE)
    print(table(rows))
    if arguments.write:
        write_section(arguments.write, "pseudo-label-options", table(rows))


if __name__ == "__main__":
    main()
