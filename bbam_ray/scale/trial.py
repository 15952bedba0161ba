"""The actor that trains trials: one process, reused from trial to trial."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

from ray import tune

from bbam_ray.engine.checkpoint import load_checkpoint, save_checkpoint
from bbam_ray.engine.task import PseudoLabelAudit, TrainingData, prepare_training
from bbam_ray.engine.threads import use_threads
from bbam_ray.engine.trainer import Trainer
from bbam_ray.methods import run_config

_STATE_FILE = "state.pt"


class Trial(tune.Trainable):
    """One epoch a step. Config: ``number``, ``parameters``, and ``run`` (what all trials share)."""

    _data: tuple[TrainingData, PseudoLabelAudit]
    _data_key: str | None = None

    def setup(self, config: dict[str, Any]) -> None:
        self._failure: Exception | None = None
        try:
            self._build(config)
        except Exception as error:  # reported by the first step, so that the actor lives on
            self._failure = error

    def _build(self, config: dict[str, Any]) -> None:
        run = config["run"]
        use_threads(run["threads"])
        settings = run_config(
            {**run["settings"], **config["parameters"]}, f"trial {config['number']}"
        )
        training = settings.training
        key = repr((training.seed, training.labeled_fraction, training.validation_fraction))
        key += repr((training.dataset, training.data_dir, settings.data))
        if key != self._data_key:  # loaded once an actor, unless a search changes the data
            self._data, self._data_key = prepare_training(settings), key
        self.trainer = Trainer(settings, *self._data)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Train an epoch; a failure is a result with ``error``."""
        try:
            if self._failure is not None:
                raise self._failure
            record = self.trainer.run_epoch()
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            return {"error": reason, "traceback": traceback.format_exc(), "done": True}
        return {
            "epoch": self.trainer.epoch,
            "scalars": record.scalars,
            "labels": record.labels,
            "done": self.trainer.finished,
            "finished": self.trainer.finished,
        }

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        save_checkpoint(Path(checkpoint_dir) / _STATE_FILE, self.trainer.state_dict())

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        self.trainer.load_state_dict(load_checkpoint(Path(checkpoint_dir) / _STATE_FILE))
