"""What each switch of the published protocol is worth in test mAP.

    python -m benchmarks.protocol --data DATA [--sets digits,scene] [--seeds 0,1,2] [--switches shuffle]
    python -m benchmarks.protocol --table [--write docs/methods.md]

The method ``bbam`` with the published values of its search space, all labelled samples for training, the
model of the last epoch: with the default of every switch, and with one of them, or all, as published. Rows
are added to ``benchmarks/protocol.parquet``; a cell that is there already is not run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from bbam_ray.config import RunConfig, TrainingConfig
from bbam_ray.engine.task import load_part, prepare_training
from bbam_ray.engine.trainer import Trainer
from bbam_ray.methods import run_config
from benchmarks.harm import published, test_map
from benchmarks.page import write_section
from benchmarks.regret import task_of
from benchmarks.regret_table import interval
from benchmarks.stored_cells import Values, cell_parser, measure_missing, read_cells

STORE = Path(__file__).with_name("protocol.parquet")
SETS = ("digits", "scene", "emotions", "corel5k")
PLAIN, ALL = "default", "all of them"


@dataclass(frozen=True)
class Switch:
    """A row of the table.

    Args:
        what: in words.
        settings: the published values that a run of some length can have.
        default, published: as the table shows them.
        images_only: it has no meaning for feature vectors.
        together: it is one of those that ``ALL`` has.
        needs_gpu: it is not measured here.
    """

    what: str
    settings: Callable[[TrainingConfig], dict[str, Any]]
    default: str
    published: str
    images_only: bool = False
    together: bool = True
    needs_gpu: bool = False


def _always(**settings: Any) -> Callable[[TrainingConfig], dict[str, Any]]:
    return lambda common: settings


def _cycle(common: TrainingConfig) -> dict[str, Any]:
    """A cycle as much longer than the main phase as the published one: 40 epochs for 28."""
    return {"cycle_epochs": round((common.epochs - common.warmup_epochs) * 40 / 28)}


SWITCHES = {
    "cycle_epochs": Switch(
        "length of the main phase's learning-rate cycle",
        _cycle,
        "its own length",
        "40 epochs, cut at 28",
    ),
    "cycle_momentum": Switch(
        "beta1 of AdamW", _always(cycle_momentum=True), "0.9", "0.95 -> 0.85 -> 0.95"
    ),
    "warmup_views": Switch(
        "views in the warm-up", _always(warmup_views="both"), "strong", "both", images_only=True
    ),
    "warmup_batch": Switch(
        "labelled samples of a warm-up step", _always(warmup_batch=16), "`labeled_batch`", "16"
    ),
    "labeled_negatives": Switch(
        "negatives of labelled samples",
        _always(labeled_negatives="first"),
        "refresh",
        "first (images)",
    ),
    "labeled_negatives all": Switch(
        "", _always(labeled_negatives="all"), "refresh", "all (texts)", together=False
    ),
    "ema_decay": Switch(
        "decay of the average",
        _always(ema_decay=0.9997),
        "0.9997, or the data set's",
        "0.9997",
        together=False,
    ),
    "ema_warmup": Switch("its warm-up", _always(ema_warmup=False), "true", "false"),
    "ema_restart": Switch(
        "its start in the main phase",
        _always(ema_restart="trained"),
        "none",
        "trained (VOC, COCO, texts)",
    ),
    "ema_restart averaged": Switch(
        "", _always(ema_restart="averaged"), "none", "averaged (AwA2)", together=False
    ),
    "batch_composition": Switch(
        "labelled share of a batch, and `unlabeled_weight` with it",
        _always(batch_composition="fraction", unlabeled_weight=None),
        "fixed",
        "fraction",
    ),
    "shuffle": Switch("order of samples", _always(shuffle=False), "true", "false"),
    "strong_view": Switch(
        "strong view, of scenes of 24 pixels",
        _always(strong_view="uda"),
        "affine",
        "uda",
        images_only=True,
        together=False,
    ),
    "normalize": Switch(
        "normalisation of pixels",
        _always(normalize=False),
        "true",
        "false",
        images_only=True,
        together=False,
    ),
    "amp_dtype": Switch(
        "number format on a GPU",
        _always(amp_dtype="float16"),
        "auto (bfloat16)",
        "float16",
        together=False,
        needs_gpu=True,
    ),
}


def settings_of(name: str, switch: str, seed: int, data: Path, **changes: Any) -> dict[str, Any]:
    """Settings of a cell.

    Args:
        name: of a set.
        switch: a name of ``SWITCHES``, ``PLAIN`` or ``ALL``.
        seed: of the run.
        data: folder of the sets.
        changes: further settings, for a smaller run.
    """
    task = task_of(name, data)
    plain = {
        **published(task["dataset"], "bbam"),
        **{key: str(v) if isinstance(v, Path) else v for key, v in task.items()},
        "seed": seed,
        "validation_fraction": 0.0,
        "device": "cpu",
        "keep": "last",
        **changes,
    }
    common = run_config(plain, "benchmark").training
    for each in SWITCHES if switch == ALL else [switch]:
        chosen = SWITCHES.get(each)
        if chosen and (switch != ALL or chosen.together) and applies(each, name):
            plain |= chosen.settings(common)
    return plain


def applies(switch: str, name: str) -> bool:
    """Whether a switch can be measured on a set."""
    chosen = SWITCHES.get(switch)
    return not chosen or not (chosen.needs_gpu or (chosen.images_only and name != "digits"))


def changes_nothing(switch: str, name: str, data: Path) -> bool:
    """Whether a set has the published value already."""
    runs = []
    for each in (PLAIN, switch):
        config = config_of(settings_of(name, each, 0, data))
        batch = config.training.warmup_batch or config.training.labeled_batch
        runs.append(config.flat() | {"warmup_batch": batch})
    return runs[0] == runs[1]


def config_of(settings: dict[str, Any]) -> RunConfig:
    return run_config(settings, "benchmark")


def measure(settings: dict[str, Any]) -> Values:
    """Test mAP after the last epoch and at the end of the warm-up."""
    config = config_of(settings)
    trainer, test = Trainer(config, *prepare_training(config)), load_part(config, "test")
    warmup = 0.0
    while not trainer.finished:
        trainer.run_epoch()
        if trainer.epoch == config.training.warmup_epochs:
            warmup = test_map(trainer, test)
    return {"warmup_map": warmup, "last_map": test_map(trainer, test)}


def table(data: pd.DataFrame) -> str:
    """A row per switch; paired differences from the defaults in points, with 95 % intervals."""
    lines = [
        f"| what | setting | default | published | {' | '.join(f'worth, {s}' for s in SETS)} |",
        "|---" * (4 + len(SETS)) + "|",
    ]
    for name, switch in SWITCHES.items():
        cells = [switch.what, f"`{name.split()[0]}`", switch.default, switch.published]
        worth = [_worth(data, each, name) for each in SETS]
        lines.append("| " + " | ".join([*cells, *worth]) + " |")
    worth = [_worth(data, each, ALL) for each in SETS]
    lines.append(
        "| " + " | ".join(["all of the training side, for images", "", "", "", *worth]) + " |"
    )
    means = []
    for each in SETS:
        rows = data[(data["set"] == each) & (data["switch"] == PLAIN)] if len(data) else data
        means.append(f"{rows['last_map'].mean():.3f} ({len(rows)} seeds)" if len(rows) else "")
    lines.append("| " + " | ".join(["test mAP with the defaults", "", "", "", *means]) + " |")
    return "\n".join(lines)


def _worth(data: pd.DataFrame, name: str, switch: str) -> str:
    if not applies(switch, name):
        return "GPU only" if SWITCHES[switch].needs_gpu else "no images"
    if switch in SWITCHES and changes_nothing(switch, name, Path("data")):
        return "the default"
    if not len(data):
        return ""
    wide = data[data["set"] == name].pivot(index="seed", columns="switch", values="last_map")
    if switch not in wide or PLAIN not in wide:
        return ""
    return interval((wide[switch] - wide[PLAIN]).dropna())


def main() -> None:
    parser = cell_parser(__doc__, range(5), sets=SETS, switches=(PLAIN, *SWITCHES, ALL))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = arguments.data.absolute()
    if not arguments.table:
        cells = [
            {"set": name, "switch": switch, "seed": seed}
            for seed in arguments.seeds
            for name in arguments.sets
            for switch in dict.fromkeys([PLAIN, *arguments.switches])
            if applies(switch, name)
            and (switch == PLAIN or not changes_nothing(switch, name, data))
        ]
        measure_missing(
            STORE,
            cells,
            lambda cell: measure(settings_of(cell["set"], cell["switch"], cell["seed"], data)),
        )
    rows = read_cells(STORE)
    print(table(rows))
    if arguments.write:
        write_section(arguments.write, "protocol", table(rows))


if __name__ == "__main__":
    main()
