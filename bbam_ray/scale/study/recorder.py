"""From Ray Tune's events to rows of the store, and on to whoever watches."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from ray.tune import Callback

from bbam_ray.engine.pruning_rule import PruningRule
from bbam_ray.files import write_text
from bbam_ray.results import schemas
from bbam_ray.results.epoch_rows import put_epoch
from bbam_ray.results.redaction import redacted
from bbam_ray.results.store import Row, StudyStore
from bbam_ray.scale.cluster import interruption
from bbam_ray.scale.search.outcomes import Outcome, mark_pareto, outcome_of, trial_id, trial_row
from bbam_ray.scale.search.sequence import write_study_db
from bbam_ray.scale.study.budget import Budget
from bbam_ray.scale.study.plan import StudyPlan
from bbam_ray.scale.study.trial_cache import TrialCache
from bbam_ray.scale.workers.heartbeat import HeartbeatMonitor

_FLUSH_SECONDS = 2.0
_DATABASE_SECONDS = 30.0  # study.db is for other tools; nothing here reads it


@dataclass(frozen=True)
class Event:
    """Something a watcher may show.

    Args:
        kind: what happened.
        number: of the trial (for a confirmation: its place among those asked for; for the start of the
            search: trials to come).
        values: the row that was stored, or the configuration at a start; at the start of the search
            ``budget``, a function that says what is left.
    """

    kind: Literal[
        "search_started",
        "trial_started",
        "epoch_done",
        "trial_ended",
        "confirm_started",
        "confirm_ended",
    ]
    number: int
    values: Row


Listener = Callable[[Event], None]


class Recorder(Callback):
    """Writes history rows as epochs end, and a trial's row when it ends.

    Args:
        plan: of the study.
        store: its tables.
        outcomes: of the search; each ended trial is added under its number.
        trial_cache: is told of every trial that could lookup another.
        budget: counts what is used.
        listener: is told everything.
        monitor: for processes that stand still.
        again: hands out a trial once more, if it may be tried again.
    """

    def __init__(
        self,
        plan: StudyPlan,
        store: StudyStore,
        outcomes: dict[int, Outcome],
        trial_cache: TrialCache,
        budget: Budget,
        listener: Listener,
        monitor: HeartbeatMonitor,
        again: Callable[[int], bool],
    ) -> None:
        self._again = again
        self._plan, self._store, self._outcomes = plan, store, outcomes
        self._trial_cache, self._budget = trial_cache, budget
        self._listener, self._watch = listener, monitor
        self._started: dict[int, float] = {}
        self._epochs: dict[int, dict[int, Row]] = {}
        self._done: dict[int, bool] = {}
        self._stopped_early: set[int] = set()
        self._errors: dict[int, str] = {}
        self._ended: list[Any] = []
        self._flushed = time.monotonic()
        self._database_due = self._flushed + _DATABASE_SECONDS

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks for a restore that is never made: the store is what goes on."""
        return {}

    def identity(self, number: int) -> Row:
        """Columns that name a trial."""
        study = self._store.folder.name
        return {"study": study, "trial_id": trial_id(number), "number": number}

    def lookup(
        self, number: int, values: dict[str, Any], pruning_rule: PruningRule | None
    ) -> Outcome | None:
        """The outcome of a configuration that was trained before; see ``TrialCache.lookup``."""
        row = self._trial_cache.lookup(self.identity(number), values, pruning_rule)
        if row is None:
            return None
        self._listener(Event("trial_started", number, values))
        self._listener(Event("trial_ended", number, row))
        return self._trial_cache.outcome(row)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        interruption.check()
        self._watch.check()
        while self._ended:
            _lighten(self._ended.pop())
        if self._store.patience.waiting and time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self._flush()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        number = trial.config["number"]
        self._started.setdefault(number, time.time())
        self._budget.started(number)
        self._epochs.setdefault(number, {})
        self._listener(Event("trial_started", number, trial.config["parameters"]))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        number = trial.config["number"]
        if "error" in result:
            self._errors[number] = result["error"]
            folder = self._store.folder / "errors"
            with suppress(OSError):  # the reason itself is in the trial's row
                folder.mkdir(exist_ok=True)
                write_text(folder / f"{trial_id(number)}.txt", redacted(result["traceback"]))
            return
        row = put_epoch(
            self._store,
            self.identity(number),
            result["record"].scalars,
            result["record"].labels,
            self._plan.label_names,
        )
        self._epochs[number][row["epoch"]] = row
        self._done[number] = result["finished"] and not result["stopped_early"]
        if result["stopped_early"]:
            self._stopped_early.add(number)
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self._flush()
        self._listener(Event("epoch_done", number, row))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        number = trial.config["number"]
        error = self._errors.get(number)
        if error:
            self._end(trial, schemas.FAILED, error)
            return
        if self._done.get(number):
            self._end(trial, schemas.COMPLETE, None)
        elif number in self._stopped_early:
            self._end(trial, schemas.PRUNED, None)
        else:
            self._end(trial, schemas.FAILED, "it ended before its last epoch")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        number = trial.config["number"]
        if number not in self._started and self._again(number):
            return  # its actor died before it began, which Tune does not try again
        cause = trial.get_pickled_error() or trial.get_error() or "its worker process died"
        lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
        self._end(trial, schemas.FAILED, lines[-1] if lines else type(cause).__name__)

    def _end(self, trial: Any, state: str, error: str | None) -> None:
        self._ended.append(trial)
        number, parameters = trial.config["number"], trial.config["parameters"]
        history = list(self._epochs.pop(number, {}).values())
        started = self._started.get(number, time.time())
        seconds = time.time() - started
        hours = self._budget.ended(number, seconds, complete=state == schemas.COMPLETE)
        row = trial_row(
            self.identity(number), parameters, state, history, self._plan.space, error
        ) | {
            "seed": self._plan.settings["seed"],
            "started_at": datetime.fromtimestamp(started, UTC),
            "duration_s": seconds,
            "gpu_hours": hours,
            "cost": self._plan.limits.cost_of(hours),
            "fingerprint": self._trial_cache.fingerprint(parameters),
        }
        self._store.trials.put([row])
        mark_pareto(self._store, self._plan.space)
        self._trial_cache.add(row)
        self._outcomes[number] = outcome_of(row, history, self._plan.space)
        self._flush()
        self._listener(Event("trial_ended", number, row))

    def _flush(self) -> None:
        written = self._store.flush()
        self._flushed = time.monotonic()
        if written and self._flushed > self._database_due:
            with suppress(OSError):
                write_study_db(self._store.folder, self._plan.space, self._outcomes.values())
            taken = time.monotonic() - self._flushed
            self._database_due = time.monotonic() + max(_DATABASE_SECONDS, 10 * taken)


def _lighten(trial: Any) -> None:
    """Take from an ended trial of Tune, which keeps all of them, what is in the store by now."""
    kept = trial.run_metadata
    kept.last_result = {n: v for n, v in kept.last_result.items() if n not in ("config", "record")}
    kept.metric_analysis, kept.metric_n_steps = {}, {}
