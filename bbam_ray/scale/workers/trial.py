"""The actor that trains trials for Tune, one epoch per step; it is reused from trial to trial."""

from __future__ import annotations

import pickle
import shutil
import traceback
from collections import deque
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from ray import tune
from ray.exceptions import RayActorError

from bbam_ray.engine import checkpoint_folder
from bbam_ray.engine.trainer import EpochRecord
from bbam_ray.errors import StartError, TrainingStoppedError, WorkerLostError
from bbam_ray.files import atomic_folder
from bbam_ray.scale.search.outcomes import trial_id
from bbam_ray.scale.workers.gang import Gang
from bbam_ray.scale.workers.heartbeat import HeartbeatSender
from bbam_ray.scale.workers.shapes import GangShape
from bbam_ray.scale.workers.start_errors import import_error
from bbam_ray.scale.workers.stop_notices import wait_for_end
from bbam_ray.scale.workers.trial_checkpoints import claim


@cache
def _resources(shape: GangShape) -> tune.PlacementGroupFactory:
    """One object for all trials of a shape, since Tune keeps that of every trial."""
    return tune.PlacementGroupFactory(shape.bundles)


def _again(fold: int, record: EpochRecord) -> dict[str, Any]:
    """The result of an epoch that was trained before the checkpoint."""
    return {
        "epoch": record.scalars["epoch"],
        "fold": fold,
        "record": record,
        "fold_result": None,
        "finished": False,
        "stopped_early": False,
        "again": True,
        "done": False,
    }


class Trial(tune.Trainable):
    """One epoch of one fold per step.

    Config: ``number``, ``parameters``, ``rules``, ``fingerprint``, ``run`` (shared by all trials).

    The rules are pickled: arguments of an actor must not need modules whose import may fail, since Ray
    reports that as the death of a process.

    The actor is rank 0 of the trial's gang, and its only process if a trial has one worker. A trial that
    Tune restarts after the loss of a worker resumes from the checkpoint of its last epoch, and so does an
    unfinished trial of a study that is resumed. This class writes it: with Tune's checkpoints, Tune would
    save the state of the whole search after every epoch.
    """

    _gang: Gang | None = None
    _heartbeat: HeartbeatSender | None = None

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        """The bundles of the gang; this actor takes the first."""
        return _resources(GangShape(**config["run"]["shape"]))

    def __repr__(self) -> str:
        """The name of the actor in Ray's dashboard."""
        return f"trials of {self.config['run']['study']}, rank 0"

    def setup(self, config: dict[str, Any]) -> None:
        with suppress(OSError):  # Tune made this folder for the trial; nothing is written to it
            Path(self.logdir).rmdir()
        self._failure: Exception | None = None
        self._unsaved = 0  # the step whose checkpoint is not written yet
        run, shape = config["run"], GangShape(**config["run"]["shape"])
        self._folder = Path(run["checkpoints"]) / trial_id(config["number"])
        self._heartbeat = self._heartbeat or HeartbeatSender(run["heartbeats"])
        try:
            self._gang = self._gang or Gang(
                shape, f"trials of {run['study']}", run["versions"], run["heartbeats"]
            )
            values = {**run["settings"], **config["parameters"]}
            rules = pickle.loads(config["rules"])
            self._gang.call("build", values, f"trial {config['number']}", shape.cpus, rules)
            self._earlier: deque[tuple[int, EpochRecord]] = deque()
            claim(self._folder, config["fingerprint"])
            checkpoint, _ = checkpoint_folder.resume_point(self._folder)
            if checkpoint is not None:
                self._gang.restore(checkpoint)
                self._earlier.extend(self._gang.worker.restored_epochs)
        except Exception as error:
            # The first step reports it: an error there keeps the actor, and Tune can retry the trial.
            self._failure = import_error(error) or error

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Train an epoch; a failure gives a result with ``error``, a lost worker raises.

        ``start_error`` is set if the trial failed since a worker could not start. After a restart, each
        epoch of the checkpoint is a step of its own, with ``again``: the driver may be a new process.
        """
        try:
            if self._failure is not None:
                raise self._failure
            assert self._gang is not None
            if self._earlier:
                return _again(*self._earlier.popleft())
            self._save()
            result = self._run_epoch(self._gang)
        except (WorkerLostError, RayActorError):
            raise
        except Exception as error:
            failure = error if isinstance(error, StartError) else None
            return {
                "error": str(error) if failure else f"{type(error).__name__}: {error}",
                "traceback": traceback.format_exc(),
                "start_error": failure,
                "done": True,
            }
        self._unsaved = result["step"]
        if result["finished"]:
            shutil.rmtree(self._folder, ignore_errors=True)
        return result | {"again": False, "done": result["finished"]}

    def _run_epoch(self, gang: Gang) -> dict[str, Any]:
        """Train an epoch. After a notice to stop, save in its middle.

        If its node is taken away, the trial continues until then, and Tune starts it again from there. If
        the study stops, the trial waits for its end: a resumed study continues there.
        """
        while True:
            try:
                result: dict[str, Any] = gang.call("run_epoch")
            except TrainingStoppedError:
                done, step = gang.worker.position()
                is_new = not done and step is None
                is_saved = is_new or self._write(checkpoint_folder.folder_name(done, step))
                wait_for_end(self.config, is_saved=is_saved)
                continue
            return result

    def _save(self) -> None:
        """Write the checkpoint of the last epoch; by now its row has reached the driver."""
        if self._unsaved:
            self._write(checkpoint_folder.folder_name(self._unsaved))

    def _write(self, name: str) -> bool:
        """Write a checkpoint, and delete those before it; returns whether there was room for it."""
        assert self._gang is not None
        target = self._folder / name
        try:
            with atomic_folder(target) as new:
                self._gang.save(new)
        except OSError:  # a full disk: the trial continues with its previous checkpoint
            return False
        for older in checkpoint_folder.newest_first(self._folder):
            if older != target:
                shutil.rmtree(older, ignore_errors=True)
        return True

    def cleanup(self) -> None:
        if self._heartbeat is not None:
            self._heartbeat.stop()
        if self._gang is not None:
            self._gang.close()
