"""Run by test_methods_on_ranks.py: each rank of a gloo group trains a tiny run of every method.

Usage: rank_methods.py FOLDER WORLD_SIZE, with settings.json (run name to settings) in FOLDER; rank r
writes rank-r.pt.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from gloo_group import run_script

from bbam_ray.engine.task import prepare_training
from bbam_ray.engine.trainer import Trainer
from bbam_ray.methods import run_config


def make_trainer(settings: dict[str, Any]) -> Trainer:
    config = run_config(settings, "test")
    return Trainer(config, *prepare_training(config))


def train(trainer: Trainer) -> dict[int, Any]:
    """Train to the end; by epoch: content of a checkpoint, records, and pseudo-labels by sample."""
    found = {}
    while not trainer.finished:
        record = trainer.run_epoch()
        pseudo = trainer.method.pseudo_labels()
        found[trainer.epoch] = copy.deepcopy(
            {
                "state": trainer.state_dict(),
                "samples": trainer.sample_state(),
                "losses": {k: v for k, v in record.scalars.items() if k.startswith("loss")},
                "pseudo": None if pseudo is None else {"labels": pseudo[0], "confident": pseudo[1]},
            }
        )
    return found


def work(rank: int, world_size: int, folder: Path) -> dict[str, Any]:
    runs = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    return {name: train(make_trainer(settings)) for name, settings in runs.items()}


if __name__ == "__main__":
    run_script(work)
