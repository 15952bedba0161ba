"""Run by test_gang_on_gpu.py: each rank of a gloo group trains the same tiny run, all on one device.

Usage: gpu_gang_worker.py FOLDER WORLD_SIZE, with settings.json in FOLDER; rank r writes rank-r.pt.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from gloo_group import run_script

from bbam_ray.engine.task import prepare_training
from bbam_ray.engine.trainer import Trainer
from bbam_ray.methods import run_config


def read_settings(folder: Path) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    return settings


def train(settings: dict[str, Any]) -> dict[str, Any]:
    """Train to the end; records, weights, and this rank's pseudo-labels with their rows."""
    config = run_config(settings, "test")
    trainer, records = Trainer(config, *prepare_training(config)), []
    while not trainer.finished:
        records.append(asdict(trainer.run_epoch()))
    weights = [p.detach().cpu().flatten() for p in trainer.model.parameters()]
    samples = trainer.sample_state()["unlabeled"]
    return {
        "device": trainer.device.type,
        "records": records,
        "weights": torch.cat(weights),
        "unlabeled": {name: tensor.cpu() for name, tensor in samples.items()},
    }


def work(rank: int, world_size: int, folder: Path) -> dict[str, Any]:
    return train(read_settings(folder))


if __name__ == "__main__":
    on_cpu = read_settings(Path(sys.argv[1]))["device"] == "cpu"
    run_script(work, "fork" if on_cpu else "spawn")
