"""A trial under Ray Train, for a varying number of workers: Tune's function drives a separate run."""

from __future__ import annotations

import logging
import pickle
import shutil
from pathlib import Path
from typing import Any

from ray import tune

from bbam_ray.engine.pruning_rule import FoldRule
from bbam_ray.engine.trainer import EpochRecord
from bbam_ray.errors import StartError, StorageError, TrainingStoppedError
from bbam_ray.methods import run_config
from bbam_ray.scale.search.outcomes import trial_id
from bbam_ray.scale.workers.heartbeat import HeartbeatSender
from bbam_ray.scale.workers.shapes import TrainShape
from bbam_ray.scale.workers.stop_notices import StopNotices, wait_for_end
from bbam_ray.scale.workers.train_run import TrainingFailed, train_with_ray
from bbam_ray.scale.workers.train_worker import TrainJob
from bbam_ray.scale.workers.trial_checkpoints import claim

_log = logging.getLogger(__name__)


def train_trial(config: dict[str, Any]) -> None:
    """Train a trial and report every epoch to Tune; the config is that of a ``Trial``.

    The checkpoints are in a folder named after the trial, so a trial that Tune restarts resumes.
    """
    run = config["run"]
    rules = pickle.loads(config["rules"])
    folder = Path(run["checkpoints"]) / trial_id(config["number"])
    shape = TrainShape(**run["train_shape"])
    values = {**run["settings"], **config["parameters"]}
    folds = run_config(values, "trial").training.folds
    claim(folder, config["fingerprint"])
    heartbeat = HeartbeatSender(run["heartbeats"])
    # Ray Train reads the notices of the workers' nodes itself.
    notices = StopNotices(run["heartbeats"], of_node=False)
    fold_values: list[float] = []
    try:
        for fold in range(folds):
            job = TrainJob(
                values={**values, "fold": fold},
                checkpoints=str(folder / f"fold-{fold}"),
                keep=1,
                every=1,
                cpus=shape.cpus,
                pruning_rule=rules.pruning if fold == 0 else None,
                fold_models=rules.with_models,
                is_fold=True,
            )
            if _train_fold(config, job, shape, rules.folds, fold_values, folds, notices):
                break
    except (StorageError, StartError) as error:  # the trial is run again, from its checkpoints
        start_error = error if isinstance(error, StartError) else None
        _report_failure(str(error), start_error, of_disk=start_error is None)
        return
    except TrainingFailed as error:
        _report_failure(str(error), None)
    finally:
        heartbeat.stop()
        notices.end()
    shutil.rmtree(folder, ignore_errors=True)


def _report_failure(text: str, start_error: StartError | None, *, of_disk: bool = False) -> None:
    failure = {"error": text, "traceback": text, "start_error": start_error, "of_disk": of_disk}
    tune.report({**failure, "done": True})


def _train_fold(
    config: dict[str, Any],
    job: TrainJob,
    shape: TrainShape,
    rule: FoldRule | None,
    values: list[float],
    folds: int,
    notices: StopNotices,
) -> bool:
    """Train one fold, or resume it, and report its epochs to Tune.

    If the study has to stop, it waits for its end after the checkpoint.

    Args:
        config: of the trial.
        job: of the fold.
        shape: of its workers.
        rule: when the trial is pruned between two folds.
        values: the objective of the folds before; that of this fold is added.
        folds: of the trial.
        notices: that stop it.

    Returns:
        Whether the trial has ended.

    Raises:
        StorageError: its checkpoints could not be written for too long.
        StartError: a worker cannot start.
    """
    fold = len(values)
    ended = False
    failure: Exception | None = None
    best: dict[int, Any] = {}  # the objective by epoch

    def listen(entry: dict[str, Any]) -> None:
        nonlocal ended, failure
        if entry["kind"] == "failed":
            if entry["of_disk"]:
                failure = StorageError(entry["error"])
            elif entry["start_error"] is not None:
                failure = entry["start_error"]
            else:
                ended = True
                _report_failure(entry["error"], None)
        if entry["kind"] == "waiting":
            _log.warning("%s cannot be written (%s)", entry["folder"], entry["reason"])
        if entry["kind"] != "epoch":
            return
        record, stopped = entry["record"], entry["stopped_early"]
        scalars = record["scalars"]
        best[scalars["epoch"]] = scalars.get(rule.metric) if rule else None
        finished = entry["finished"]
        if finished and not stopped:
            if len(values) == fold:
                values.append(best[entry["best_epoch"]] if rule else float("nan"))
            stopped = rule is not None and rule.stops(values)
            finished = stopped or len(values) == folds
        ended |= finished
        tune.report(
            {
                "epoch": scalars["epoch"],
                "fold": fold,
                "record": EpochRecord(**record),
                "fold_result": entry["fold_result"],
                "finished": finished,
                "stopped_early": stopped,
                "again": entry["again"],
            }
        )

    while True:
        try:
            train_with_ray(job, shape, listen, notices)
        except TrainingStoppedError as stop:
            wait_for_end(config, is_saved=stop.is_saved)
            notices.saved()
            continue
        if failure is not None:
            raise failure
        return ended
