"""The actor that trains trials for Tune, one epoch a step; it stays from trial to trial."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

from ray import tune
from ray.exceptions import RayActorError

from bbam_ray.errors import WorkerLostError
from bbam_ray.scale.gang import Gang
from bbam_ray.scale.pulse import Heart
from bbam_ray.scale.shapes import GangShape


class Trial(tune.Trainable):
    """One epoch a step. Config: ``number``, ``parameters``, ``bar`` and ``run`` (what all trials share).

    The actor is rank 0 of the trial's gang, and the whole of it when a trial has one worker.
    """

    _gang: Gang | None = None
    _heart: Heart | None = None

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        """The bundles of the gang; this actor takes the first."""
        return tune.PlacementGroupFactory(GangShape(**config["run"]["shape"]).bundles)

    def setup(self, config: dict[str, Any]) -> None:
        self._failure: Exception | None = None
        run, shape = config["run"], GangShape(**config["run"]["shape"])
        self._heart = self._heart or Heart(run["beats"])
        try:
            self._gang = self._gang or Gang(shape)
            values = {**run["settings"], **config["parameters"]}
            self._gang.call("build", values, f"trial {config['number']}", shape.cpus, config["bar"])
        except (WorkerLostError, RayActorError):
            raise
        except Exception as error:  # reported by the first step, so that the actor lives on
            self._failure = error

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Train an epoch; a failure is a result with ``error``, the loss of a worker an exception.

        Tune goes on from the last checkpoint after an exception, with new workers.
        """
        assert self._gang is not None
        try:
            if self._failure is not None:
                raise self._failure
            result: dict[str, Any] = self._gang.call("run_epoch")
        except (WorkerLostError, RayActorError):
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            return {"error": reason, "traceback": traceback.format_exc(), "done": True}
        return result | {"done": result["finished"]}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        assert self._gang is not None
        self._gang.save(Path(checkpoint_dir))

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        assert self._gang is not None
        self._gang.restore(Path(checkpoint_dir))

    def cleanup(self) -> None:
        if self._heart is not None:
            self._heart.stop()
        if self._gang is not None:
            self._gang.close()
