"""Clients of TensorBoard, MLflow and W&B, on their public APIs, one run for each trial.

A client is created in the driver's main thread and used in the thread of its tracker.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

PATIENCE_S = 60.0  # how long a tracker may take to upload at the end


class Client(Protocol):
    """The interface of a tracker; ``trial`` is the trial's ID."""

    def __init__(self, folder: Path, study: str) -> None:
        """Import the library; connect to nothing yet.

        Args:
            folder: for its files; exists.
            study: names the experiment.
        """

    def open(self) -> None:
        """Connect."""

    def start(self, trial: str, parameters: Mapping[str, Any]) -> None:
        """Start the run of a trial."""

    def log(self, trial: str, epoch: int, values: Mapping[str, float]) -> None:
        """Log the finite numbers of an epoch."""

    def end(self, trial: str, failed: bool) -> None:
        """End the run of a trial."""


class TensorBoard:
    """Event files by tensorboardX, which Ray Tune installs; torch's writer needs one more package."""

    def __init__(self, folder: Path, study: str) -> None:
        from tensorboardX import SummaryWriter

        self._folder, self._writer_class = folder, SummaryWriter
        self._writers: dict[str, Any] = {}
        self._parameters: dict[str, Mapping[str, Any]] = {}
        self._last: dict[str, Mapping[str, float]] = {}

    def open(self) -> None:
        """Nothing to connect to."""

    def start(self, trial: str, parameters: Mapping[str, Any]) -> None:
        folder = self._folder / trial
        folder.mkdir(parents=True, exist_ok=True)
        self._writers[trial], self._parameters[trial] = self._writer_class(str(folder)), parameters

    def log(self, trial: str, epoch: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writers[trial].add_scalar(name, value, epoch)
        self._writers[trial].flush()
        self._last[trial] = values

    def end(self, trial: str, failed: bool) -> None:
        from tensorboardX.summary import hparams

        writer, parameters = self._writers.pop(trial), self._parameters.pop(trial)
        if values := self._last.pop(trial, None):
            # ``add_hparams`` would write a second event file with each value once more.
            for summary in hparams(_table_row(parameters), dict(values)):
                writer.file_writer.add_summary(summary)
        writer.close()


def _table_row(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters for TensorBoard's table, which takes neither None nor infinite numbers."""
    return {
        name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in parameters.items()
        if value is not None
    }


class MLflow:
    """A local database, unless the user has set ``MLFLOW_TRACKING_URI``."""

    def __init__(self, folder: Path, study: str) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        self._study, self._runs = study, dict[str, str]()
        self._metric, self._param, self._client_class = Metric, Param, MlflowClient
        self._address = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder}/mlflow.db"

    def open(self) -> None:
        self._client = self._client_class(tracking_uri=self._address)
        experiment = self._client.get_experiment_by_name(self._study)
        self._experiment = (
            experiment.experiment_id if experiment else self._client.create_experiment(self._study)
        )

    def start(self, trial: str, parameters: Mapping[str, Any]) -> None:
        run = self._client.create_run(self._experiment, run_name=trial)
        self._runs[trial] = run.info.run_id
        params = [self._param(name, str(value)) for name, value in parameters.items()]
        self._client.log_batch(run.info.run_id, params=params)

    def log(self, trial: str, epoch: int, values: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        metrics = [self._metric(name, value, now, epoch) for name, value in values.items()]
        self._client.log_batch(self._runs[trial], metrics=metrics)

    def end(self, trial: str, failed: bool) -> None:
        status = "FAILED" if failed else "FINISHED"
        self._client.set_terminated(self._runs.pop(trial), status)


class WandB:
    """Offline, unless the user has set a mode or a key; the project is the study."""

    def __init__(self, folder: Path, study: str) -> None:
        # Even offline it would report its errors to a server.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        if "WANDB_API_KEY" not in os.environ:
            os.environ.setdefault("WANDB_MODE", "offline")
        import wandb

        self._folder, self._study, self._wandb = folder, study, wandb
        self._runs: dict[str, Any] = {}

    def open(self) -> None:
        """Each run connects by itself."""

    def start(self, trial: str, parameters: Mapping[str, Any]) -> None:
        folder = self._folder / trial
        folder.mkdir(parents=True, exist_ok=True)
        self._runs[trial] = self._wandb.init(
            project=self._study,
            id=trial,
            name=trial,
            dir=folder,
            config=dict(parameters),
            reinit="create_new",  # trials run at the same time
            settings=self._wandb.Settings(
                console="off",
                silent=True,
                disable_code=True,
                disable_git=True,
                x_disable_meta=True,  # it would store the command line
                finish_timeout=PATIENCE_S,
                finish_timeout_raises=True,
            ),
        )

    def log(self, trial: str, epoch: int, values: Mapping[str, float]) -> None:
        self._runs[trial].log(dict(values), step=epoch)

    def end(self, trial: str, failed: bool) -> None:
        self._runs.pop(trial).finish(exit_code=int(failed))
