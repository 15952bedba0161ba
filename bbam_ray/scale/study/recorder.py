"""From Ray Tune's callbacks to rows of the store and events for the listener."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import wraps
from typing import Any

from ray.tune import Callback

from bbam_ray.engine.folds import without_files
from bbam_ray.engine.pruning_rule import TrialRules
from bbam_ray.errors import StorageError
from bbam_ray.files import write_text
from bbam_ray.results import schemas
from bbam_ray.results.epoch_rows import put_epoch
from bbam_ray.results.redaction import redacted
from bbam_ray.results.store import Row, StudyStore
from bbam_ray.scale import private_api
from bbam_ray.scale.search.outcomes import Outcome, outcome_of, trial_id, trial_row
from bbam_ray.scale.search.pareto import ParetoSet
from bbam_ray.scale.study.budget import Budget
from bbam_ray.scale.study.events import (
    EpochDone,
    Listener,
    Notice,
    TrialEnded,
    TrialStarted,
)
from bbam_ray.scale.study.fold_store import FoldStore
from bbam_ray.scale.study.plan import StudyPlan
from bbam_ray.scale.study.running_trial import RunningTrial
from bbam_ray.scale.study.start_failures import StartFailures
from bbam_ray.scale.study.trial_cache import TrialCache
from bbam_ray.scale.study.tune_searcher import StudySearcher
from bbam_ray.scale.study.writer import StudyWriter
from bbam_ray.scale.workers.start_errors import died_at_start, start_error


def _storage_error_later(callback: Callable[..., None]) -> Callable[..., None]:
    """Raise a StorageError of a callback at the end of the step, since Tune would wrap it.

    Until then nothing more is recorded.
    """

    @wraps(callback)
    def call(self: Recorder, *args: Any, **info: Any) -> None:
        try:
            if self._storage_error is None:
                callback(self, *args, **info)
        except StorageError as error:
            self._storage_error = error

    return call


class Recorder(Callback):
    """Writes history rows as epochs end, and a trial's row when it ends.

    Args:
        plan: of the study.
        store: its tables.
        searcher: gets the outcome of each trial, and trials that have to start again.
        trial_cache: gets each ended trial.
        pareto_set: gets each ended trial.
        writer: writes the tables and ``study.db``.
        budget: counts what trials use.
        failures: workers that cannot start.
        listener: gets every event.
    """

    def __init__(
        self,
        plan: StudyPlan,
        store: StudyStore,
        searcher: StudySearcher,
        trial_cache: TrialCache,
        pareto_set: ParetoSet,
        writer: StudyWriter,
        budget: Budget,
        failures: StartFailures,
        listener: Listener,
    ) -> None:
        self._plan, self._store, self._searcher = plan, store, searcher
        self._trial_cache, self._budget, self._listener = trial_cache, budget, listener
        self._pareto_set = pareto_set
        self._failures = failures
        self._running: dict[int, RunningTrial] = {}
        self._restarting: set[int] = set()  # after the loss of a worker
        self._storage_error: StorageError | None = None
        self._ended: list[Any] = []  # Tune's trials, to be released
        self._fold_store = FoldStore(store)
        self._with_models: list[Row] = []
        self._keep_models(store.trials.rows())
        self._writer = writer

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks for a restore that this project does not use."""
        return {}

    def identity(self, number: int) -> Row:
        """Columns that name a trial."""
        study = self._store.folder.name
        return {"study": study, "trial_id": trial_id(number), "number": number}

    def lookup(self, number: int, parameters: dict[str, Any], rules: TrialRules) -> Outcome | None:
        """The outcome of a configuration that was trained before; see ``TrialCache.lookup``."""
        reused = self._trial_cache.lookup(self.identity(number), parameters, rules)
        if reused is None:
            return None
        row, outcome = reused
        self._keep_models([row])
        self._listener(TrialStarted(number, parameters))
        self._listener(TrialEnded(number, row))
        return outcome

    def _keep_models(self, ended: list[Row]) -> None:
        """Delete models that are no longer needed, now that some trials have ended."""
        rows = map(self._pareto_set.marked, [*self._with_models, *ended])
        self._with_models = self._fold_store.keep_models(rows, self._plan.space)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if self._storage_error is not None:
            raise self._storage_error
        while self._ended:
            private_api.release_trial(self._ended.pop())
        self._writer.step()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        number = trial.config["number"]
        self._restarting.discard(number)
        private_api.set_retries(trial, self._plan.max_failures)
        self._running.setdefault(number, RunningTrial(started=time.time()))
        self._budget.started(number)
        self._listener(TrialStarted(number, trial.config["parameters"]))

    @_storage_error_later
    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        number = trial.config["number"]
        running = self._running[number]
        if result.get("of_disk"):
            self._storage_error = StorageError(result["error"])
            return
        if "error" in result:
            running.error, running.start_error = result["error"], result["start_error"]
            self._write_traceback(number, result["traceback"])
            return
        self._failures.trained = True
        record, fold, epoch = result["record"], result["fold"], result["epoch"]
        if (again := result["again"]) and not running.records:
            self._listener(Notice(f"trial {number} resumes from its checkpoint"))
        running.records.setdefault(fold, {})[epoch] = record
        identity, mean = self.identity(number), running.epoch(epoch)
        row = put_epoch(self._store, identity, mean.scalars, mean.labels, self._plan.label_names)
        if self._plan.folds > 1:
            self._store.folds.put([identity | record.scalars | {"fold": fold}])
        if (fold_result := result["fold_result"]) is not None:
            self._fold_store.write(trial_id(number), fold_result)
            running.folds[fold] = without_files(fold_result)
        running.finished = result["finished"] and not result["stopped_early"]
        running.pruned |= result["stopped_early"]
        self._writer.flush_if_due()
        self._listener(EpochDone(number, row | {"fold": fold}, again))

    def _write_traceback(self, number: int, traceback: str) -> None:
        folder = self._store.folder / "errors"
        with suppress(OSError):  # the error itself is in the trial's row
            folder.mkdir(exist_ok=True)
            write_text(folder / f"{trial_id(number)}.txt", redacted(traceback))

    @_storage_error_later
    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        number = trial.config["number"]
        running = self._running.get(number) or RunningTrial(started=time.time())
        self._end(trial, *running.state())

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        # Tune starts it again; whether that is repeated if its process cannot start is decided here.
        self._restarting.add(trial.config["number"])
        private_api.set_retries(trial, 0)

    @_storage_error_later
    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        number = trial.config["number"]
        cause = private_api.error_of(trial) or "its worker process died"
        if number not in self._running or number in self._restarting:
            failure = start_error(cause)
            if failure is None and self._failures.starts_again(number):
                self._searcher.retry(number)
                return
            failure = failure or died_at_start(cause)
            running = self._running.setdefault(number, RunningTrial(started=time.time()))
            running.start_error = failure
            self._write_traceback(number, str(cause))
            self._end(trial, schemas.FAILED, str(failure))
            return
        lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
        self._end(trial, schemas.FAILED, lines[-1] if lines else type(cause).__name__)

    def _end(self, trial: Any, state: str, error: str | None) -> None:
        self._ended.append(trial)
        number, parameters = trial.config["number"], trial.config["parameters"]
        running = self._running.pop(number, None) or RunningTrial(started=time.time())
        self._restarting.discard(number)
        if running.start_error is not None:
            self._searcher.lose_place()
            self._failures.report(f"trial {number}", running.start_error)
        history = running.rows()
        seconds = time.time() - running.started
        hours = self._budget.ended(number, seconds, complete=state == schemas.COMPLETE)
        space = self._plan.space
        errors = {}
        if self._plan.folds == 1 and 0 in running.folds:
            weights = running.folds[0].weights.items()
            errors = {phase: each.standard_error for phase, each in weights}
        row = trial_row(
            self.identity(number),
            parameters,
            state,
            history,
            space,
            error,
            keep=self._plan.config_of(parameters).training.keep_rule,
            bootstrap_error=errors,
        ) | {
            "seed": self._plan.settings["seed"],
            "started_at": (
                None if running.start_error else datetime.fromtimestamp(running.started, UTC)
            ),
            "duration_s": seconds,
            "gpu_hours": hours,
            "cost": self._plan.limits.cost_of(hours),
            "fingerprint": self._trial_cache.fingerprint(parameters),
        }
        row = self._pareto_set.add(row)
        self._store.end_trial(row)
        self._trial_cache.add(row)
        self._searcher.outcomes[number] = outcome_of(row, history, space)
        self._keep_models([row])
        self._writer.flush()
        self._listener(TrialEnded(number, row))
