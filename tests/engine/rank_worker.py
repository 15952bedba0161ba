"""Run by the fixtures of conftest.py: each rank of a gloo group trains the tiny runs, and resumes from a
checkpoint folder.

Usage: rank_worker.py FOLDER WORLD_SIZE, with settings.json in FOLDER; rank r writes rank-r.pt.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch.distributed as dist
from gloo_group import run_script

from bbam_ray import distributed
from bbam_ray.engine import checkpoint_folder
from bbam_ray.engine.task import prepare_training
from bbam_ray.engine.trainer import EpochRecord, Trainer
from bbam_ray.methods import run_config


def make_trainer(settings: dict[str, Any], **changes: Any) -> Trainer:
    config = run_config({**settings, **changes}, "test")
    return Trainer(config, *prepare_training(config))


def snapshot(trainer: Trainer) -> dict[str, Any]:
    """A copy of the weights and of the state of this rank's samples."""
    samples = {
        pool: {name: tensor.clone() for name, tensor in known.items()}
        for pool, known in trainer.sample_state().items()
    }
    weights = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    average = {name: t.clone() for name, t in trainer.average.module.state_dict().items()}
    return {"weights": weights, "average": average, "samples": samples}


def train(
    trainer: Trainer, checkpoints: Path | None = None, before: list[EpochRecord] | None = None
) -> dict[str, Any]:
    """Train to the end; states by epoch, and all records. With a folder: save every epoch there."""
    records, states = list(before or []), {}
    while not trainer.finished:
        records.append(trainer.run_epoch())
        states[trainer.epoch] = snapshot(trainer)
        if checkpoints is not None:
            folder = checkpoints / checkpoint_folder.folder_name(trainer.epoch)
            checkpoint_folder.save_part(folder, trainer, records)
    return {"states": states, "records": [asdict(record) for record in records]}


def resume(settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Resume from a checkpoint in a new trainer; returns the loaded state too."""
    trainer = make_trainer(settings)
    records = checkpoint_folder.load(folder, trainer)
    loaded = snapshot(trainer)
    found = {"loaded": loaded, "loaded records": [asdict(record) for record in records]}
    return found | train(trainer, before=records)


def messages_of_two_epochs(settings: dict[str, Any]) -> list[Counter[str]]:
    """Collectives of an epoch of the warm-up and of one of the main phase."""
    trainer, counts = make_trainer(settings, epochs=2, warmup_epochs=1), []
    while not trainer.finished:
        before = Counter(distributed.messages_sent())
        trainer.run_epoch()
        counts.append(Counter(distributed.messages_sent()) - before)
    return counts


def work(rank: int, world_size: int, folder: Path) -> dict[str, Any]:
    job = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    settings, checkpoints = job["settings"], Path(job["checkpoints"])
    results: dict[str, Any] = {
        "messages": messages_of_two_epochs(settings),
        "run": train(make_trainer(settings), checkpoints if job["write"] else None),
        "apart": train(make_trainer(settings, synchronized_batch_norm=False, stop_epoch=1)),
    }
    if job["write"]:
        results["supervised"] = train(make_trainer(job["supervised"]))
        trainer = make_trainer(job["sparse"])
        results["sparse"] = train(trainer)
        steps = trainer._steps(trainer.epoch, main_phase=True)
        results["labelled in each step"] = [len(step.labeled.rows) for step in steps]
    dist.barrier()
    for epoch in job["resume"]:
        source = checkpoints / checkpoint_folder.folder_name(epoch)
        results[f"from {epoch}"] = resume(settings, source)
    return results


if __name__ == "__main__":
    run_script(work)
