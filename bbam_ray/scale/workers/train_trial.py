"""A trial under Ray Train, for a varying number of workers: Tune's function drives a separate run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from ray import tune

from bbam_ray.engine.trainer import EpochRecord
from bbam_ray.scale.search.outcomes import trial_id
from bbam_ray.scale.workers.heartbeat import HeartbeatSender
from bbam_ray.scale.workers.shapes import TrainShape
from bbam_ray.scale.workers.train_run import TrainingFailed, train_with_ray
from bbam_ray.scale.workers.train_worker import TrainJob


def train_trial(config: dict[str, Any]) -> None:
    """Train a trial and report every epoch to Tune; the config is that of a ``Trial``.

    The checkpoints are in a folder named after the trial, so a trial that Tune restarts resumes.
    """
    run = config["run"]
    folder = Path(run["checkpoints"]) / trial_id(config["number"])
    shape = TrainShape(**run["train_shape"])
    job = TrainJob(
        values={**run["settings"], **config["parameters"]},
        checkpoints=str(folder),
        keep=1,
        every=1,
        cpus=shape.cpus,
        pruning_rule=config["pruning_rule"],
    )

    def listen(entry: dict[str, Any]) -> None:
        if entry["kind"] == "epoch":
            record = entry["record"]
            tune.report(
                {
                    "epoch": record["scalars"]["epoch"],
                    "record": EpochRecord(**record),
                    "finished": entry["finished"],
                    "stopped_early": entry["stopped_early"],
                }
            )
        elif entry["kind"] == "failed":
            tune.report({"error": entry["error"], "traceback": entry["error"], "done": True})

    heartbeat = HeartbeatSender(run["heartbeats"])
    try:
        train_with_ray(job, shape, listen)
    except TrainingFailed as error:
        tune.report({"error": str(error), "traceback": str(error), "done": True})
    finally:
        heartbeat.stop()
    shutil.rmtree(folder, ignore_errors=True)
