"""Run by test_timm_runs.py and test_published_views.py: each rank of a gloo group trains on images.

Usage: rank_images.py FOLDER WORLD_SIZE, with settings.json in FOLDER; rank r writes rank-r.pt.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gloo_group import run_script

from bbam_ray.engine.task import prepare_training
from bbam_ray.engine.trainer import Trainer
from bbam_ray.methods import run_config


def train(settings: dict[str, Any]) -> dict[str, Any]:
    """Weights at the start and after two epochs, and the losses of the epochs."""
    config = run_config(settings, "test")
    trainer = Trainer(config, *prepare_training(config))
    start = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    losses = []
    while not trainer.finished:
        losses.append(trainer.run_epoch().scalars["loss"])
    return {"start": start, "end": trainer.model.state_dict(), "losses": losses}


def work(rank: int, world_size: int, folder: Path) -> dict[str, Any]:
    job = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    return {name: train(settings) for name, settings in job.items()}


if __name__ == "__main__":
    run_script(work)
