"""Experiment trackers for a study, by Ray's own callbacks; none is on unless it is asked for.

A tracker gets a copy of what the store gets, and has no say: each works in a thread of its own, so a
slow server holds nothing up, and one that fails is switched off with one warning.
"""

from __future__ import annotations

import logging
import math
import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from ray.tune import Callback

from bbam_ray.errors import UsageError, nearest
from bbam_ray.optional import check_installed
from bbam_ray.results.redaction import redacted
from bbam_ray.scale.search.outcomes import trial_id

TRACKERS = ("tensorboard", "mlflow", "wandb")

_PACKAGES = {"tensorboard": "tensorboardX", "mlflow": "mlflow", "wandb": "wandb"}
_PATIENCE_S = 60.0  # what a tracker may take at the end of a study
_log = logging.getLogger(__name__)


def check_trackers(names: Iterable[str]) -> None:
    """Refuse what is no tracker, is given twice or is not installed; loads none of them."""
    seen: set[str] = set()
    for name in names:
        if name not in TRACKERS:
            raise UsageError(f"tracker '{name}' is not known; {nearest(name, TRACKERS)}")
        if name in seen:
            raise UsageError(f"tracker '{name}' is given twice; name it once")
        check_installed(_PACKAGES[name], "tracking", f"tracker '{name}'")
        seen.add(name)


def tracking_callbacks(names: Iterable[str], folder: Path, study: str) -> list[Callback]:
    """A callback for each tracker, inside a connected Ray; its files go to ``folder/trackers/<name>``.

    Whoever runs the study calls ``on_experiment_end`` of each once more when it was interrupted.
    """
    return [Tracker(name, folder.absolute() / "trackers" / name, study) for name in names]


@dataclass(frozen=True)
class TrackedTrial:
    """What a tracker sees of a trial; the same run whenever it has the same ``trial_id``.

    Tune's own trial also carries the handle of an actor and all settings of the study.
    """

    trial_id: str
    config: dict[str, Any] = field(compare=False)
    local_path: str = field(compare=False)
    experiment_dir_name: str = field(compare=False)

    @property
    def evaluated_params(self) -> dict[str, Any]:
        """The same for TensorBoard's table, which takes neither None nor infinite numbers."""
        return {
            name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in self.config.items()
            if value is not None
        }

    def init_local_path(self) -> None:
        Path(self.local_path).mkdir(parents=True, exist_ok=True)

    def __str__(self) -> str:
        return self.trial_id


def tracked_result(result: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of an epoch; what is missing, not finite or text is left out."""
    numbers = {
        name: float(value)
        for name, value in result["record"].scalars.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    }
    return numbers | {"training_iteration": int(result["epoch"])}


class Tracker(Callback):
    """Hands the events of a study to one of Ray's logger callbacks.

    Args:
        name: one of ``TRACKERS``.
        folder: for its files.
        study: names the experiment.
    """

    def __init__(self, name: str, folder: Path, study: str) -> None:
        self._name, self._folder, self._study = name, folder, study
        self._open: dict[int, TrackedTrial] = {}
        self._failed: set[int] = set()
        self._calls: SimpleQueue[tuple[str, tuple[Any, ...]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=f"tracker {name}", daemon=True)
        self._on, self._logger = True, None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._logger = _LOGGERS[name](folder, study)
        except Exception as error:
            self._give_up(error)

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks for a restore that is never made."""
        return {}

    def setup(self, *args: Any, **info: Any) -> None:
        if self._on:
            self._thread.start()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        number = trial.config["number"]
        if number in self._open:  # it goes on after the loss of a worker
            return
        name, values = trial_id(number), dict(trial.config["parameters"])
        seen = TrackedTrial(name, values, str(self._folder / name), self._study)
        self._open[number] = seen
        self._put("log_trial_start", seen)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        number = trial.config["number"]
        if "error" in result:
            self._failed.add(number)
        elif number in self._open:
            self._put("log_trial_result", iteration, self._open[number], tracked_result(result))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        number = trial.config["number"]
        self._end(number, number in self._failed)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._end(trial.config["number"], True)

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        """Let the tracker finish; trials that were stopped in their middle count as failed."""
        for number in list(self._open):
            self._end(number, True)
        self._put("on_experiment_end", [])
        self._calls.put(None)
        if self._thread.is_alive():
            self._thread.join(_PATIENCE_S + 5)
            if self._thread.is_alive():
                self._give_up(TimeoutError("it did not finish in time"))
        self._on = False

    def _end(self, number: int, failed: bool) -> None:
        if number in self._open:
            self._put("log_trial_end", self._open.pop(number), failed)

    def _put(self, method: str, *arguments: Any) -> None:
        if self._on:
            self._calls.put((method, arguments))

    def _work(self) -> None:
        logger: Any = self._logger
        try:
            logger.setup()
            while (call := self._calls.get()) is not None and self._on:
                getattr(logger, call[0])(*call[1])
                if failure := getattr(logger, "failure", None):
                    raise failure
        except Exception as error:
            self._give_up(error)
        self._logger = None  # W&B's actors end with it

    def _give_up(self, error: Exception) -> None:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = f"{type(error).__name__}: {lines[-1]}" if lines else type(error).__name__
        if self._on:
            told = redacted(reason)  # a server's address may hold a password
            _log.warning("tracker %s is off, the study goes on (%s)", self._name, told)
        self._on = False


def _tensorboard(folder: Path, study: str) -> Any:
    from ray.tune.logger import TBXLoggerCallback

    return TBXLoggerCallback()


def _mlflow(folder: Path, study: str) -> Any:
    """A local database, unless the user has named a server."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # stdout is ours
    import mlflow
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    theirs = os.environ.get("MLFLOW_TRACKING_URI")
    address = theirs or f"sqlite:///{folder / 'mlflow.db'}"
    mlflow.set_tracking_uri(address)
    if not theirs:  # MLflow writes it there; a later study would take it for the user's wish
        os.environ.pop("MLFLOW_TRACKING_URI", None)
    return MLflowLoggerCallback(tracking_uri=address, experiment_name=study)


def _wandb(folder: Path, study: str) -> Any:
    """Offline, unless the user has set a mode or a key; the project is the study."""
    # Even offline it looks for a server to report errors to.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    if "WANDB_API_KEY" not in os.environ:
        os.environ.setdefault("WANDB_MODE", "offline")
    import ray
    from ray.air.integrations.wandb import WandbLoggerCallback, _WandbLoggingActor

    settings = {name: value for name, value in os.environ.items() if name.startswith("WANDB_")}

    class Actor(_WandbLoggingActor):
        """The process of a run; a cluster that was there before us has not seen our settings."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            os.environ.update(settings)
            super().__init__(*args, **kwargs)

    class Logger(WandbLoggerCallback):
        """Keeps the error of an actor, which Ray's callback drops."""

        _logger_actor_cls = Actor
        failure: Exception | None = None

        def log_trial_start(self, trial: TrackedTrial) -> None:
            trial.init_local_path()
            super().log_trial_start(trial)

        def _cleanup_logging_actor(self, trial: TrackedTrial) -> None:
            try:
                ray.get(self._trial_logging_futures[trial], timeout=0)
            except Exception as error:
                self.failure = error
            super()._cleanup_logging_actor(trial)

    return Logger(project=study, upload_timeout=int(_PATIENCE_S), reinit="finish_previous")


_LOGGERS = {"tensorboard": _tensorboard, "mlflow": _mlflow, "wandb": _wandb}
