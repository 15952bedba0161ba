"""The order of configurations: Optuna asked in a way that gives the same study every time.

Trial n is drawn with a sampler seeded by (seed, n) that has seen the outcomes of the trials up to
n - lag and, as running, the configurations of those after. What it sees therefore does not depend
on which of several concurrent trials ends first, and a study that goes on after a stop draws what it
would have drawn. Outcomes of the store are put in by number; Optuna's own storage is never the truth.
"""

from __future__ import annotations

import sqlite3
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna

from bbam_ray.errors import UsageError
from bbam_ray.files import atomic_file
from bbam_ray.results import schemas
from bbam_ray.scale.search.outcomes import Outcome
from bbam_ray.scale.search.space import Space

Sampler = Literal["tpe", "gp", "qmc", "random"]
_STATES: dict[str, optuna.trial.TrialState] = {
    schemas.COMPLETE: optuna.trial.TrialState.COMPLETE,
    schemas.PRUNED: optuna.trial.TrialState.PRUNED,
    schemas.FAILED: optuna.trial.TrialState.FAIL,
}


class ConfigSequence:
    """Numbered configurations of a study, drawn in order.

    Args:
        space: what is searched.
        seed: of the study.
        lag: how many trials back the newest outcome lies that a draw may use; at least the number
            of concurrent trials.
        done: outcomes of an earlier run of the same study.
        sampler: tpe (multivariate, running trials count as bad), gp, qmc (scrambled Sobol) or random.
        prior: outcomes of another study, with numbers below 0, known from the beginning.
    """

    def __init__(
        self,
        space: Space,
        seed: int,
        lag: int,
        done: Iterable[Outcome] = (),
        *,
        sampler: Sampler = "tpe",
        prior: Iterable[Outcome] = (),
    ) -> None:
        self.space, self.seed, self.lag, self._kind = space, seed, lag, sampler
        self.outcomes = {outcome.number: outcome for outcome in done}
        self._study, self.prior = _study(space), list(prior)
        for outcome in self.prior:
            self._study.add_trial(_ended(space, outcome))
        self._first = len(self.prior)  # place of trial 0
        self._told = 0
        self._points = _QuasiRandom(space, seed) if sampler == "qmc" else None
        self.drawn: list[dict[str, Any]] = []

    def known(self, number: int) -> list[Outcome]:
        """The outcomes that a trial's configuration and its early stopping may depend on."""
        last = number - self.lag
        return self.prior + [o for o in self.outcomes.values() if o.number <= last]

    def ready(self) -> bool:
        """Whether the outcomes that the next draw uses are known."""
        return all(n in self.outcomes for n in range(self._told, len(self.drawn) - self.lag + 1))

    def draw(self) -> dict[str, Any]:
        """The next configuration (that of the store, where the trial has been run before)."""
        number = len(self.drawn)
        while self._told <= number - self.lag:
            self._tell(self.outcomes[self._told])
            self._told += 1
        point = self._points.point(number) if self._points else None
        stored = self.outcomes.get(number)
        if stored is not None:
            values = stored.parameters
        elif number == 0:
            values = self.space.published
        elif point is not None:
            values = point
        else:
            self._study.sampler = self._sampler(number)
            values = self.space.suggest(self._study.ask())
            self.drawn.append(dict(values))
            return dict(values)
        self._study.add_trial(self._running(values))
        self.drawn.append(dict(values))
        return dict(values)

    def _running(self, values: dict[str, Any]) -> optuna.trial.FrozenTrial:
        try:
            return optuna.trial.create_trial(
                state=optuna.trial.TrialState.RUNNING,
                params=values,
                distributions=_distributions(self.space, values),
            )
        except (ValueError, KeyError) as error:
            raise UsageError(
                f"the search space no longer holds the configurations of this study ({error}); "
                "use another --name for a changed space, with --warm-start to go on from this one"
            ) from None

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        seed = int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0])
        if self._kind == "gp":
            return optuna.samplers.GPSampler(seed=seed, warn_independent_sampling=False)
        if self._kind == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        return optuna.samplers.TPESampler(multivariate=True, constant_liar=True, seed=seed)

    def _tell(self, outcome: Outcome) -> None:
        place, storage = self._first + outcome.number, self._study._storage
        trial = storage.get_trial_id_from_study_id_trial_number(self._study._study_id, place)
        if len(self.space.objectives) == 1:  # Optuna has no intermediate values for several
            for epoch, value in outcome.by_epoch.items():
                storage.set_trial_intermediate_value(trial, epoch, value)
        # A pruned trial speaks through its values by epoch.
        told = outcome.values if outcome.state == schemas.COMPLETE else None
        self._study.tell(place, told, state=_STATES[outcome.state])


class _QuasiRandom:
    """Points of a scrambled Sobol sequence by number, which depend on no outcome.

    They come from a study of their own, in which every trial is drawn in order: Optuna counts the
    points it has given out, and a study that goes on must not begin to count again.
    """

    def __init__(self, space: Space, seed: int) -> None:
        self._space, self._points = space, [space.published]
        self._study = _study(space)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._study.sampler = optuna.samplers.QMCSampler(
                scramble=True, seed=seed, warn_independent_sampling=False
            )
        # The sampler takes its dimensions from the first trial.
        first = Outcome(0, space.published, schemas.COMPLETE, tuple(0.0 for _ in space.objectives))
        self._study.add_trial(_ended(space, first))

    def point(self, number: int) -> dict[str, Any]:
        while len(self._points) <= number:
            self._points.append(self._space.suggest(self._study.ask()))
        return self._points[number]


def _study(space: Space, **options: Any) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    up, down = optuna.study.StudyDirection.MAXIMIZE, optuna.study.StudyDirection.MINIMIZE
    directions = [up if mode == "max" else down for _, mode in space.objectives]
    return optuna.create_study(directions=directions, **options)


def _distributions(space: Space, values: Iterable[str]) -> dict[str, Any]:
    return {name: space.parameters[name].distribution() for name in values}


def _ended(space: Space, outcome: Outcome) -> optuna.trial.FrozenTrial:
    """An ended trial as Optuna keeps it."""
    complete = outcome.state == schemas.COMPLETE
    return optuna.trial.create_trial(
        state=_STATES[outcome.state],
        values=outcome.values if complete else None,
        params=outcome.parameters,
        distributions=_distributions(space, outcome.parameters),
        intermediate_values=outcome.by_epoch if len(space.objectives) == 1 else {},
        user_attrs={"number": outcome.number, "error": outcome.error},
    )


def write_study_db(folder: Path, space: Space, outcomes: Iterable[Outcome]) -> None:
    """Write the finished trials to ``study.db``, an Optuna study in SQLite named like the folder.

    Derived from the store, in number order, for Optuna's own tools (dashboard, importances); the file is
    replaced as a whole.
    """
    ordered = sorted(outcomes, key=lambda outcome: outcome.number)
    with atomic_file(folder / "study.db") as temporary:
        _fill_study_db(temporary, folder.name, space, ordered)


def _fill_study_db(path: Path, name: str, space: Space, outcomes: list[Outcome]) -> None:
    try:
        _fill(path, name, space, outcomes)
    except Exception as error:  # in which Optuna's database layer wraps that of SQLite
        cause = getattr(error, "orig", None)
        if isinstance(cause, sqlite3.OperationalError):  # a full disk, say
            raise OSError(str(cause)) from error
        raise


def _fill(path: Path, name: str, space: Space, outcomes: list[Outcome]) -> None:
    storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
    try:
        _put_all(storage, name, space, outcomes)
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _put_all(storage: Any, name: str, space: Space, outcomes: list[Outcome]) -> None:
    study = _study(space, study_name=name, storage=storage)
    metrics = [metric for metric, _ in space.objectives]
    study.set_user_attr("metric", metrics if len(metrics) > 1 else metrics[0])
    study.add_trials([_ended(space, outcome) for outcome in outcomes])
