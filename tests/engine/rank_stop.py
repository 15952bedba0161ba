"""Run by test_stop_on_ranks.py: SIGTERM reaches one rank of a gloo group, and all of them stop and resume.

Usage: rank_stop.py FOLDER WORLD_SIZE, with settings.json in FOLDER; rank r writes rank-r.pt.
"""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from gloo_group import run_script

from bbam_ray import distributed
from bbam_ray.engine import checkpoint_folder
from bbam_ray.engine.session import run_epochs
from bbam_ray.engine.stop_request import StopRequest, made_by_signal
from bbam_ray.engine.task import prepare_training
from bbam_ray.engine.trainer import EpochRecord, Trainer
from bbam_ray.errors import TrainingStoppedError
from bbam_ray.methods import run_config


class GroupSession:
    """Writes one checkpoint, where training stops; every rank its part.

    Args:
        parent: folder of checkpoints, shared by all ranks.
        requested: whether this rank has a request.
    """

    def __init__(self, parent: Path, requested: Callable[[], bool]) -> None:
        self._parent, self.stop_requested = parent, requested
        self.records: list[EpochRecord] = []

    def resume_folder(self) -> Path | None:
        return next(checkpoint_folder.newest_first(self._parent), None)

    def resumed(self, trainer: Trainer, records: list[EpochRecord]) -> None:
        self.records = records

    def report(self, trainer: Trainer, records: list[EpochRecord]) -> None:
        self.records = records

    def stopped(self, trainer: Trainer, records: list[EpochRecord]) -> None:
        folder = self._parent / checkpoint_folder.name_now(trainer)
        checkpoint_folder.save_part(folder, trainer, records)


def train(
    settings: dict[str, Any], parent: Path, signalled: tuple[int, int] | None = None, rank: int = 0
) -> dict[str, Any]:
    """Train from the newest checkpoint to the end or to a stop.

    Args:
        settings: of the run.
        parent: folder of checkpoints.
        signalled: epoch and step at which a rank sends SIGTERM to itself.
        rank: that rank.
    """
    config = run_config(settings, "test")
    trainer, request = Trainer(config, *prepare_training(config)), StopRequest()

    def requested() -> bool:
        here = trainer.running and (trainer.epoch, trainer.running.step)
        if signalled is not None and here == signalled and distributed.rank() == rank:
            os.kill(os.getpid(), signal.SIGTERM)
        return request()

    session = GroupSession(parent, requested)
    before, where = Counter(distributed.messages_sent()), None
    with made_by_signal(request):
        try:
            for _ in run_epochs(trainer, session):
                pass
        except TrainingStoppedError as stop:
            where = str(stop)
    return {
        "where": where,
        "records": [asdict(record) for record in session.records],
        "trainer": trainer.state_dict(),
        "samples": trainer.sample_state(),
        "generator": torch.get_rng_state(),
        "messages": Counter(distributed.messages_sent()) - before,
    }


def messages_of_epochs(settings: dict[str, Any]) -> Counter[str]:
    """Collectives of a run whose epochs are trained without a session, which is never asked to stop."""
    config = run_config(settings, "test")
    trainer = Trainer(config, *prepare_training(config))
    before = Counter(distributed.messages_sent())
    while not trainer.finished:
        trainer.run_epoch()
    return Counter(distributed.messages_sent()) - before


def work(rank: int, world_size: int, folder: Path) -> dict[str, Any]:
    job = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    results: dict[str, Any] = {}
    for name, settings in job["settings"].items():
        parent = Path(job["checkpoints"]) / name
        if moment := job["signalled"]:
            (folder / name).mkdir(exist_ok=True)
            results[f"{name} whole"] = train(settings, folder / name)
            results[f"{name} stopped"] = train(settings, parent, tuple(moment), rank=world_size - 1)
            dist.barrier()
            results[f"{name} messages"] = messages_of_epochs(settings)
        results[f"{name} resumed"] = train(settings, parent)
    return results


if __name__ == "__main__":
    run_script(work)
