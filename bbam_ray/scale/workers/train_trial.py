"""A trial under Ray Train, for a varying number of workers: Tune's function drives a separate run."""

from __future__ import annotations

import logging
import pickle
import shutil
import threading
from pathlib import Path
from typing import Any

from ray import tune

from bbam_ray.engine.pruning_rule import FoldRule
from bbam_ray.engine.trainer import EpochRecord
from bbam_ray.errors import StartError, TrainingStoppedError
from bbam_ray.methods import run_config
from bbam_ray.scale.search.outcomes import trial_id
from bbam_ray.scale.workers.heartbeat import HeartbeatSender
from bbam_ray.scale.workers.shapes import TrainShape
from bbam_ray.scale.workers.stop_notices import StopNotices
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
    heartbeat, notices = HeartbeatSender(run["heartbeats"]), StopNotices(run["heartbeats"])
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
            if _train_fold(job, shape, rules.folds, fold_values, folds, notices):
                break
    except TrainingStoppedError:
        run["heartbeats"].trial_saved.remote(config["number"])
        threading.Event().wait()  # the study ends this process
    except (TrainingFailed, StartError) as error:
        _report_failure(str(error), error if isinstance(error, StartError) else None)
    finally:
        heartbeat.stop()
        notices.end()
    shutil.rmtree(folder, ignore_errors=True)


def _report_failure(text: str, failure: StartError | None) -> None:
    tune.report({"error": text, "traceback": text, "start_error": failure, "done": True})


def _train_fold(
    job: TrainJob,
    shape: TrainShape,
    rule: FoldRule | None,
    values: list[float],
    folds: int,
    notices: StopNotices,
) -> bool:
    """Train one fold, or resume it, and report its epochs to Tune.

    Args:
        job: of the fold.
        shape: of its workers.
        rule: when the trial is pruned between two folds.
        values: the objective of the folds before; that of this fold is added.
        folds: of the trial.
        notices: that stop it.

    Returns:
        Whether the trial has ended.

    Raises:
        TrainingStoppedError: after a notice, and the checkpoint.
    """
    fold = len(values)
    ended = False
    best: dict[int, Any] = {}  # the objective by epoch

    def listen(entry: dict[str, Any]) -> None:
        nonlocal ended
        if entry["kind"] == "failed":
            ended = True
            _report_failure(entry["error"], entry["start_error"])
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

    train_with_ray(job, shape, listen, notices)
    return ended
