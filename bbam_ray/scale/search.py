"""The order of configurations: Optuna asked in a way that gives the same study every time.

Trial n is drawn with a sampler seeded by (seed, n) that has seen the outcomes of the trials up to
n - lag and, as running, the configurations of those after. What it sees therefore does not depend
on which of several concurrent trials ends first, and a study that goes on after a stop draws what it
would have drawn. Outcomes of the store are put in by number; Optuna's own storage is never the truth.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from ray.tune.search import Searcher

from bbam_ray.errors import UsageError
from bbam_ray.results import schemas
from bbam_ray.results.store import write_whole
from bbam_ray.scale.space import Space

_STATES = {
    schemas.COMPLETE: optuna.trial.TrialState.COMPLETE,
    schemas.PRUNED: optuna.trial.TrialState.PRUNED,
    schemas.FAILED: optuna.trial.TrialState.FAIL,
}


@dataclass
class Outcome:
    """How a trial ended: state, objective (None unless it has one) and the objective by epoch."""

    number: int
    parameters: dict[str, Any]
    state: str
    value: float | None
    by_epoch: dict[int, float] = field(default_factory=dict)
    error: str | None = None


class Sequence:
    """Numbered configurations of a study, drawn in order.

    Args:
        space: what is searched.
        seed: of the study.
        lag: how many trials back the newest outcome lies that a draw may use; at least the number
            of concurrent trials.
        done: outcomes of an earlier run of the same study.
    """

    def __init__(self, space: Space, seed: int, lag: int, done: Iterable[Outcome] = ()) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.space, self.seed, self.lag = space, seed, lag
        self.outcomes = {outcome.number: outcome for outcome in done}
        self._study = optuna.create_study(
            direction="maximize" if space.mode == "max" else "minimize"
        )
        self._told = 0
        self.drawn: list[dict[str, Any]] = []

    def ready(self) -> bool:
        """Whether the outcomes that the next draw uses are known."""
        return all(n in self.outcomes for n in range(self._told, len(self.drawn) - self.lag + 1))

    def draw(self) -> dict[str, Any]:
        """The next configuration (that of the store, where the trial has been run before)."""
        number = len(self.drawn)
        while self._told <= number - self.lag:
            self._tell(self.outcomes[self._told])
            self._told += 1
        stored = self.outcomes.get(number)
        if number == 0 or stored is not None:
            values = self.space.published if stored is None else stored.parameters
            self._study.add_trial(self._running(values))
        else:
            self._study.sampler = self._sampler(number)
            values = self.space.suggest(self._study.ask())
        self.drawn.append(dict(values))
        return dict(values)

    def _running(self, values: dict[str, Any]) -> optuna.trial.FrozenTrial:
        distributions = {name: self.space.parameters[name].distribution() for name in values}
        try:
            return optuna.trial.create_trial(
                state=optuna.trial.TrialState.RUNNING, params=values, distributions=distributions
            )
        except ValueError as error:
            raise UsageError(
                f"the search space no longer holds the configurations of this study ({error}); "
                "use another --name for a changed space"
            ) from None

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        seed = int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0])
        return optuna.samplers.TPESampler(multivariate=True, constant_liar=True, seed=seed)

    def _tell(self, outcome: Outcome) -> None:
        trial = self._study.trials[outcome.number]
        for epoch, value in outcome.by_epoch.items():
            self._study._storage.set_trial_intermediate_value(trial._trial_id, epoch, value)
        # A pruned trial speaks through its values by epoch.
        told = outcome.value if outcome.state == schemas.COMPLETE else None
        self._study.tell(outcome.number, told, state=_STATES[outcome.state])


def write_study_db(path: Path, name: str, space: Space, outcomes: Iterable[Outcome]) -> None:
    """Write the finished trials as an Optuna study in SQLite; replaces the file as a whole.

    Derived from the store, in number order, for Optuna's own tools (dashboard, importances).
    """
    ordered = sorted(outcomes, key=lambda outcome: outcome.number)
    write_whole(path, lambda temporary: _fill_study_db(temporary, name, space, ordered))


def _fill_study_db(path: Path, name: str, space: Space, outcomes: list[Outcome]) -> None:
    storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
    study = optuna.create_study(
        study_name=name,
        storage=storage,
        direction="maximize" if space.mode == "max" else "minimize",
    )
    study.set_user_attr("metric", space.metric)
    for outcome in outcomes:
        complete = outcome.state == schemas.COMPLETE
        study.add_trial(
            optuna.trial.create_trial(
                state=_STATES[outcome.state],
                value=outcome.value if complete else None,
                params=outcome.parameters,
                distributions={
                    name: space.parameters[name].distribution() for name in outcome.parameters
                },
                intermediate_values=outcome.by_epoch,
                user_attrs={"number": outcome.number, "error": outcome.error},
            )
        )
    storage.remove_session()
    storage.engine.dispose()


class StudySearcher(Searcher):
    """Hands the configurations of a ``Sequence`` to Ray Tune.

    Args:
        sequence: numbered configurations.
        total: trials of the study, those done before included.
        concurrency: trials at once.
    """

    def __init__(self, sequence: Sequence, total: int, concurrency: int) -> None:
        super().__init__()
        self._sequence, self._total, self._concurrency = sequence, total, concurrency
        self.numbers: dict[str, int] = {}

    def set_search_properties(self, *args: Any, **kwargs: Any) -> bool:
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        sequence = self._sequence
        running = sum(n not in sequence.outcomes for n in self.numbers.values())
        while len(sequence.drawn) < self._total:
            if running >= self._concurrency or not sequence.ready():
                return None
            number = len(sequence.drawn)
            values = sequence.draw()
            if number not in sequence.outcomes:
                self.numbers[trial_id] = number
                return {"number": number, "parameters": values}
        return self.FINISHED

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """The recorder puts the outcome into the sequence, before the next ``suggest``."""

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its searcher for a restore that is never made."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).write_bytes(pickle.dumps({}))

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: a study goes on from its own store."""
