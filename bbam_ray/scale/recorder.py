"""From Ray Tune's events to rows of the store, and on to whoever watches."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from ray.tune import Callback

from bbam_ray.results import schemas
from bbam_ray.results.rows import put_epoch
from bbam_ray.results.store import Row, StudyStore
from bbam_ray.scale import interruption
from bbam_ray.scale.pulse import Watch
from bbam_ray.scale.search import Outcome
from bbam_ray.scale.space import Space

_FLUSH_SECONDS = 2.0


@dataclass(frozen=True)
class Event:
    """Something a watcher may show.

    Args:
        kind: trial_started, epoch_done, trial_ended, confirm_started or confirm_ended.
        number: of the trial (for a confirmation: its place among those asked for).
        values: the row that was stored, or the configuration at a start.
    """

    kind: Literal["trial_started", "epoch_done", "trial_ended", "confirm_started", "confirm_ended"]
    number: int
    values: Row


Listener = Callable[[Event], None]


def objective_by_epoch(rows: list[Row], metric: str) -> dict[int, float]:
    """The objective of the epochs that have one."""
    return {row["epoch"]: row[metric] for row in rows if row.get(metric) is not None}


def outcome_of(trial: Row, history: list[Row], space: Space) -> Outcome:
    """A stored trial as the search sees it."""
    prefix = "param_"
    values = {
        name.removeprefix(prefix): value
        for name, value in trial.items()
        if name.startswith(prefix) and value is not None
    }
    by_epoch = objective_by_epoch(history, space.metric)
    value = trial[space.metric] if trial["state"] != schemas.FAILED else None
    state = trial["state"] if value is not None else schemas.FAILED
    return Outcome(trial["number"], values, state, value, by_epoch, trial["error"])


class Recorder(Callback):
    """Writes history rows as epochs end, and a trial's row when it ends.

    Args:
        store: tables of the study.
        space: names the objective.
        outcomes: of the search; each ended trial is added under its number.
        settings: what all trials share.
        gpus: per trial, for ``gpu_hours``.
        label_names: K names.
        listener: is told everything.
        watch: for processes that stand still.
    """

    def __init__(
        self,
        store: StudyStore,
        space: Space,
        outcomes: dict[int, Outcome],
        settings: dict[str, Any],
        gpus: float,
        label_names: tuple[str, ...],
        listener: Listener,
        watch: Watch,
    ) -> None:
        self._store, self._space, self._outcomes = store, space, outcomes
        self._settings, self._gpus = settings, gpus
        self._label_names, self._listener = label_names, listener
        self._watch = watch
        self._started: dict[int, float] = {}
        self._epochs: dict[int, dict[int, Row]] = {}
        self._done: dict[int, bool] = {}
        self._errors: dict[int, str] = {}
        self._flushed = time.monotonic()

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks for a restore that is never made: the store is what goes on."""
        return {}

    def _identity(self, number: int) -> Row:
        study = self._store.folder.name
        return {"study": study, "trial_id": trial_id(number), "number": number}

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        interruption.check()
        self._watch.check()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        number = trial.config["number"]
        self._started.setdefault(number, time.time())
        self._epochs.setdefault(number, {})
        self._listener(Event("trial_started", number, trial.config["parameters"]))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        number = trial.config["number"]
        if "error" in result:
            self._errors[number] = result["error"]
            folder = self._store.folder / "errors"
            folder.mkdir(exist_ok=True)
            (folder / f"{trial_id(number)}.txt").write_text(result["traceback"], encoding="utf-8")
            return
        row = put_epoch(
            self._store,
            self._identity(number),
            result["scalars"],
            result["labels"],
            self._label_names,
        )
        self._epochs[number][row["epoch"]] = row
        self._done[number] = result["finished"]
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self._store.labels.flush()
            self._store.history.flush()
            self._flushed = time.monotonic()
        self._listener(Event("epoch_done", number, row))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        number = trial.config["number"]
        error = self._errors.get(number)
        state = schemas.COMPLETE if self._done.get(number) else schemas.PRUNED
        self._end(trial, schemas.FAILED if error else state, error)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        cause = trial.get_pickled_error() or trial.get_error() or "its worker process died"
        lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
        self._end(trial, schemas.FAILED, lines[-1] if lines else type(cause).__name__)

    def _end(self, trial: Any, state: str, error: str | None) -> None:
        number, space = trial.config["number"], self._space
        rows = list(self._epochs.get(number, {}).values())
        by_epoch = objective_by_epoch(rows, space.metric)
        if state != schemas.FAILED and not by_epoch:
            state, error = schemas.FAILED, error or f"no epoch ended with a value of {space.metric}"
        choose = max if space.mode == "max" else min
        best = choose(by_epoch, key=by_epoch.__getitem__) if by_epoch else None
        best_row = next((row for row in rows if row["epoch"] == best), {})
        seconds = time.time() - self._started[number]
        row = self._identity(number) | {
            "state": state,
            "seed": self._settings["seed"],
            **{f"param_{name}": value for name, value in trial.config["parameters"].items()},
            **{name: value for name, value in best_row.items() if name.startswith("val_")},
            "best_epoch": best,
            "epochs": len(rows),
            "started_at": datetime.fromtimestamp(self._started[number], UTC),
            "duration_s": seconds,
            "gpu_hours": seconds / 3600 * self._gpus,
            "cost": None,
            "error": error,
        }
        self._store.trials.put([row])
        self._store.flush()
        self._outcomes[number] = outcome_of(row, rows, space)
        self._listener(Event("trial_ended", number, row))


def trial_id(number: int) -> str:
    """The name of a trial: the same whenever the study is repeated."""
    return f"t{number:05d}"
