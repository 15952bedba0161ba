"""The actor that trains trials for Tune, one epoch a step; it stays from trial to trial."""

from __future__ import annotations

import shutil
import traceback
from pathlib import Path
from typing import Any

from ray import tune
from ray.exceptions import RayActorError

from bbam_ray.engine import checkpoint_folder
from bbam_ray.errors import WorkerLostError
from bbam_ray.files import atomic_folder
from bbam_ray.scale.search.outcomes import trial_id
from bbam_ray.scale.workers.gang import Gang
from bbam_ray.scale.workers.heartbeat import HeartbeatSender
from bbam_ray.scale.workers.shapes import GangShape


class Trial(tune.Trainable):
    """One epoch per step. Config: ``number``, ``parameters``, ``pruning_rule``, ``run`` (shared).

    The actor is rank 0 of the trial's gang, and the whole of it when a trial has one worker. A trial that
    Tune starts again after the loss of a worker goes on from the checkpoint of its last epoch, which is
    this class's own: Tune's would make it write down the whole search after every epoch.
    """

    _gang: Gang | None = None
    _heartbeat: HeartbeatSender | None = None

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        """The bundles of the gang; this actor takes the first."""
        return tune.PlacementGroupFactory(GangShape(**config["run"]["shape"]).bundles)

    def __repr__(self) -> str:
        """What Ray's dashboard calls the actor, which stays from trial to trial."""
        return f"trials of {self.config['run']['study']}, rank 0"

    def setup(self, config: dict[str, Any]) -> None:
        self._failure: Exception | None = None
        self._unsaved = 0  # the epoch whose checkpoint is still to be written
        run, shape = config["run"], GangShape(**config["run"]["shape"])
        self._folder = Path(run["checkpoints"]) / trial_id(config["number"])
        self._heartbeat = self._heartbeat or HeartbeatSender(run["heartbeats"])
        try:
            self._gang = self._gang or Gang(shape, f"trials of {run['study']}")
            values = {**run["settings"], **config["parameters"]}
            self._gang.call(
                "build", values, f"trial {config['number']}", shape.cpus, config["pruning_rule"]
            )
            kept, _ = checkpoint_folder.resume_point(self._folder)
            if kept is not None:
                self._gang.restore(kept)
        except Exception as error:
            # The first step reports it: there the actor lives on, or Tune tries the trial again.
            self._failure = error

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Train an epoch; a failure is a result with ``error``, the loss of a worker an exception."""
        try:
            if self._failure is not None:
                raise self._failure
            assert self._gang is not None
            self._save()
            result: dict[str, Any] = self._gang.call("run_epoch")
        except (WorkerLostError, RayActorError):
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            return {"error": reason, "traceback": traceback.format_exc(), "done": True}
        self._unsaved = result["epoch"]
        if result["finished"]:
            shutil.rmtree(self._folder, ignore_errors=True)
        return result | {"done": result["finished"]}

    def _save(self) -> None:
        """Keep the last epoch. Its row has reached the driver by now: rows never lag behind."""
        assert self._gang is not None
        if self._unsaved:
            target = self._folder / checkpoint_folder.folder_name(self._unsaved)
            try:
                with atomic_folder(target) as new:
                    self._gang.save(new)
            except OSError:  # a full disk: the trial goes on with the checkpoint before
                return
            for older in checkpoint_folder.newest_first(self._folder):
                if older != target:
                    shutil.rmtree(older, ignore_errors=True)

    def cleanup(self) -> None:
        if self._heartbeat is not None:
            self._heartbeat.stop()
        if self._gang is not None:
            self._gang.close()
