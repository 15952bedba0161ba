"""Confirmation: the best configurations, retrained in parallel over seeds the search has not used."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from bbam_ray.engine.confirm import confirmation_config
from bbam_ray.engine.model_folder import read_description, read_weights
from bbam_ray.errors import UsageError, WorkerLostError
from bbam_ray.files import atomic_folder
from bbam_ray.methods import run_config
from bbam_ray.results.redaction import redacted
from bbam_ray.results.store import Row, StudyStore
from bbam_ray.scale.cluster import interruption
from bbam_ray.scale.search.outcomes import parameters_of
from bbam_ray.scale.study.events import ConfirmEnded, ConfirmStarted, Listener
from bbam_ray.scale.study.plan import StudyPlan
from bbam_ray.scale.workers.gang import Gang
from bbam_ray.scale.workers.heartbeat import HEARTBEAT_SECONDS, HeartbeatMonitor, HeartbeatSender
from bbam_ray.scale.workers.shapes import GangShape
from bbam_ray.scale.workers.trial_worker import Files


def confirm(plan: StudyPlan, store: StudyStore, best: list[Row], listener: Listener) -> None:
    """Retrain each of the best configurations over seeds; runs that succeeded before are kept.

    Args:
        plan: of the study.
        store: its tables; rows are added to ``confirm``.
        best: rows of the trials to confirm, the best first.
        listener: gets an event at the start and the end of each run.
    """
    ranks = {row["number"]: rank for rank, row in enumerate(best, start=1)}
    rows = store.confirm.rows()
    store.confirm.put(row | {"rank": ranks.get(row["number"])} for row in rows)
    done = {(row["number"], row["seed"]) for row in rows if not row["error"]}
    done -= {(row["number"], row["seed"]) for row in rows if _damaged(model_folder(store, row))}
    waiting = [
        (ranks[row["number"]], seed, row)
        for row in best
        for seed in confirmation_seeds(plan.settings["seed"], plan.confirm_seeds)
        if (row["number"], seed) not in done
    ]
    store.flush()
    shape = plan.shape
    task = ray.remote(
        num_cpus=shape.cpus,
        num_gpus=shape.gpus,
        max_retries=2,
        retry_exceptions=[WorkerLostError, ray.exceptions.RayActorError],
    )(_confirm_one)
    study = store.folder.name
    groups = [
        placement_group(shape.bundles, name=f"confirmation of {study}, slot {slot}")
        for slot in range(min(len(waiting), plan.concurrency))
    ]
    try:
        with HeartbeatMonitor(plan.shape.timeout_s) as monitor:
            _run_all(plan, store, waiting, task, groups, monitor, listener)
    finally:
        for group in groups:
            remove_placement_group(group)


def _run_all(
    plan: StudyPlan,
    store: StudyStore,
    waiting: list[tuple[int, int, Row]],
    task: Any,
    free: list[Any],
    monitor: HeartbeatMonitor,
    listener: Listener,
) -> None:
    """Keep every placement group busy until all runs are done."""
    free = list(free)
    running: dict[ray.ObjectRef[Any], tuple[int, Row, Any, Path]] = {}
    index = 0  # of the next run to start
    while index < len(waiting) or running:
        while index < len(waiting) and free:
            rank, seed, trial = waiting[index]
            row = {name: value for name, value in trial.items() if name.startswith("param_")}
            row |= {name: trial[name] for name in ("study", "trial_id", "number")}
            row |= {"rank": rank, "seed": seed}
            folder = model_folder(store, row)
            thresholds = trial_thresholds(store, trial, plan.label_names)
            listener(ConfirmStarted(index, row))
            group = free.pop()
            strategy = PlacementGroupSchedulingStrategy(group, 0, True)
            name = f"{store.folder.name}: confirm trial {trial['number']}, seed {seed}"
            reference = task.options(scheduling_strategy=strategy, name=name).remote(
                plan.settings, trial, seed, thresholds, plan.shape, monitor.heartbeats
            )
            running[reference] = (index, row, group, folder)
            index += 1
        ready, _ = ray.wait(list(running), num_returns=1, timeout=HEARTBEAT_SECONDS)
        interruption.check()
        monitor.check()
        if not ready:
            continue
        (finished,) = ready
        number, row, group, folder = running.pop(finished)
        free.append(group)
        try:
            metrics, files = ray.get(finished)
            row |= metrics
            if files:
                store.patience.insist(partial(_write_files, files, folder))
        except ray.exceptions.RayError as error:  # its workers were lost in every attempt
            row |= {"error": f"{type(error).__name__}: its workers were lost", "duration_s": 0.0}
        row["gpu_hours"] = row["duration_s"] / 3600 * plan.gpus
        row["cost"] = plan.limits.cost_of(row["gpu_hours"])
        store.confirm.put([row])
        store.flush()
        listener(ConfirmEnded(number, row))


def model_folder(store: StudyStore, row: Row) -> Path:
    """Folder of the model of a confirmed run."""
    return store.folder / "checkpoints" / f"confirm-{row['trial_id']}-seed{row['seed']}"


def _damaged(model: Path) -> bool:
    """True if the model folder exists but is unreadable; a deleted folder is fine."""
    if not model.is_dir():
        return False
    try:
        read_description(model)
        read_weights(model)
    except UsageError:
        return True
    return False


def confirmation_seeds(seed: int, count: int) -> list[int]:
    """Seeds of the confirmation, without the seed of the search: its split selected the best trials."""
    return [seed + 1 + index for index in range(count)]


def _write_files(files: Files, folder: Path) -> None:
    with atomic_folder(folder) as new:
        new.mkdir(parents=True)
        for name, content in files.items():
            (new / name).write_bytes(content)


def _confirm_one(
    settings: dict[str, Any],
    trial: Row,
    seed: int,
    thresholds: list[float],
    shape: GangShape,
    heartbeats: Any,
) -> tuple[Row, Files]:
    """Run one confirmation in a Ray worker, rank 0 of its gang.

    Returns:
        The row, and the files of the model. A failure is a row with ``error`` and no files.
    """
    row: Row = {"started_at": datetime.now(UTC)}
    gang, heartbeat = None, HeartbeatSender(heartbeats)
    try:
        gang = Gang(shape, f"confirmation of {trial['study']}, seed {seed}")
        config = confirmation_config(
            settings, parameters_of(trial), seed, stop_epoch(settings, trial)
        )
        metrics, files = gang.call("confirm", config.flat(), thresholds, shape.cpus)
        return row | metrics, files
    except (WorkerLostError, ray.exceptions.RayActorError):
        raise  # Ray retries the whole run
    except Exception as error:
        elapsed = (datetime.now(UTC) - row["started_at"]).total_seconds()
        reason = redacted(f"{type(error).__name__}: {error}")
        return row | {"error": reason, "duration_s": elapsed}, {}
    finally:
        heartbeat.stop()
        if gang is not None:
            gang.close()


def stop_epoch(settings: dict[str, Any], trial: Row) -> int | None:
    """The best epoch of a trial that ended before the end of its schedule, else None."""
    epochs = run_config({**settings, **parameters_of(trial)}, "trial").training.epochs
    best: int | None = trial["best_epoch"] if trial["epochs"] < epochs else None
    return best


def trial_thresholds(store: StudyStore, trial: Row, label_names: tuple[str, ...]) -> list[float]:
    """Thresholds that a trial tuned on its validation data at its best epoch, in label order."""
    rows = {
        row["label"]: row["threshold"]
        for row in store.labels.rows_of(trial["number"])
        if row["epoch"] == trial["best_epoch"]
    }
    return [rows[name] for name in label_names]
