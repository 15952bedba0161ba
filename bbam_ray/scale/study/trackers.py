"""Experiment trackers for a study; none is on by default.

A tracker gets a copy of what the store gets and has no influence on the study: each works in its own
thread, so a slow server delays nothing, and one that fails is switched off with one warning.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from ray.tune import Callback

from bbam_ray.errors import UsageError, nearest
from bbam_ray.optional import check_installed
from bbam_ray.results.redaction import redacted
from bbam_ray.scale.search.outcomes import trial_id
from bbam_ray.scale.study import tracker_clients
from bbam_ray.scale.study.tracker_clients import Client, MLflow, TensorBoard, WandB

#: name -> client, package that it needs
TRACKERS: dict[str, tuple[type[Client], str]] = {
    "tensorboard": (TensorBoard, "tensorboardX"),
    "mlflow": (MLflow, "mlflow"),
    "wandb": (WandB, "wandb"),
}
_log = logging.getLogger(__name__)


def check_trackers(names: Iterable[str]) -> None:
    """Check that trackers exist, are installed and are named once; imports none of them.

    Raises:
        UsageError: one of them is not usable.
    """
    seen: set[str] = set()
    for name in names:
        if name not in TRACKERS:
            raise UsageError(f"tracker '{name}' is not known; {nearest(name, TRACKERS)}")
        if name in seen:
            raise UsageError(f"tracker '{name}' is given twice; name it once")
        check_installed(TRACKERS[name][1], "tracking", f"tracker '{name}'")
        seen.add(name)


def tracking_callbacks(names: Iterable[str], folder: Path, study: str) -> list[Tracker]:
    """A callback for each tracker; its files go to ``folder/trackers/<name>``.

    The caller calls ``on_experiment_end`` of each once more if the study was interrupted.
    """
    return [Tracker(name, folder.absolute() / "trackers" / name, study) for name in names]


def finite_numbers(scalars: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of an epoch, without what is missing, not finite or text."""
    return {
        name: float(value)
        for name, value in scalars.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    }


class Tracker(Callback):
    """Passes the events of Ray Tune to the client of a tracker, in its own thread.

    Args:
        name: one of ``TRACKERS``.
        folder: for its files.
        study: names the experiment.
    """

    def __init__(self, name: str, folder: Path, study: str) -> None:
        self._name = name
        self._running: dict[str, set[tuple[int, int]]] = {}  # folds and epochs, by trial
        self._failed: set[str] = set()
        self._calls: SimpleQueue[tuple[Any, ...] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=f"tracker {name}", daemon=True)
        self._on = True
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._client = TRACKERS[name][0](folder, study)
        except Exception as error:
            self._switch_off(error)

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks for a restore that this project does not use."""
        return {}

    def setup(self, *args: Any, **info: Any) -> None:
        if self._on:
            self._thread.start()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        name = trial_id(trial.config["number"])
        if name not in self._running:  # else it resumes after the loss of a worker
            self._running[name] = set()
            self._put("start", name, dict(trial.config["parameters"]))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        name = trial_id(trial.config["number"])
        if "error" in result:
            self._failed.add(name)
        elif name in self._running:
            logged, fold_and_epoch = self._running[name], (result["fold"], result["epoch"])
            if fold_and_epoch in logged:  # from the checkpoint of a trial that has started again
                return
            logged.add(fold_and_epoch)
            values = finite_numbers(result["record"].scalars)
            self._put("log", name, int(result["epoch"]), values)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        name = trial_id(trial.config["number"])
        self._end(name, name in self._failed)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._end(trial_id(trial.config["number"]), True)

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        """Let the tracker finish; trials that were interrupted count as failed."""
        for name in sorted(self._running):
            self._end(name, True)
        self._calls.put(None)
        if self._thread.is_alive():
            self._thread.join(tracker_clients.PATIENCE_S + 5)
            if self._thread.is_alive():
                self._switch_off(TimeoutError("it did not finish in time"))
        self._on = False

    def _end(self, name: str, failed: bool) -> None:
        if name in self._running:
            del self._running[name]
            self._put("end", name, failed)

    def _put(self, method: str, *arguments: Any) -> None:
        """Let the thread call a method of the client."""
        if self._on:
            self._calls.put((method, *arguments))

    def _work(self) -> None:
        try:
            self._client.open()
            while (call := self._calls.get()) is not None and self._on:
                method, *arguments = call
                getattr(self._client, method)(*arguments)
        except Exception as error:
            self._switch_off(error)

    def _switch_off(self, error: Exception) -> None:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = f"{type(error).__name__}: {lines[-1]}" if lines else type(error).__name__
        if self._on:
            message = redacted(reason)  # a server's address may hold a password
            _log.warning("tracker %s is off, the study continues (%s)", self._name, message)
        self._on = False
