"""Ray Tune's side of the search: it hands out the configurations of a ``ConfigSequence``."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray.tune.search import Searcher

from bbam_ray.engine.pruning_rule import TrialRules
from bbam_ray.scale.search.outcomes import Outcome
from bbam_ray.scale.search.pruning import Stopping
from bbam_ray.scale.search.sequence import ConfigSequence

Lookup = Callable[[int, dict[str, Any], TrialRules], Outcome | None]


def _no_lookup(number: int, parameters: dict[str, Any], rules: TrialRules) -> Outcome | None:
    return None


class StudySearcher(Searcher):
    """Hands numbered configurations to Ray Tune, each with the rules of the trial.

    Args:
        sequence: numbered configurations.
        total: trials of the study, those of earlier runs included.
        concurrency: trials at once.
        stopping: creates the rules of trials.
        with_models: whether trials yield the models of their folds.
        may_start: takes the number of running trials; whether the budget allows one more.
    """

    def __init__(
        self,
        sequence: ConfigSequence,
        total: int,
        concurrency: int,
        stopping: Stopping,
        may_start: Callable[[int], bool] = lambda running: True,
        *,
        with_models: bool = False,
    ) -> None:
        super().__init__()
        self._with_models = with_models
        self._lookup: Lookup = _no_lookup
        self._fingerprint: Callable[[dict[str, Any]], str] = lambda parameters: ""
        self._stopped = False
        self._sequence, self._total, self._concurrency = sequence, total, concurrency
        self._stopping, self._may_start = stopping, may_start
        self._running: dict[int, dict[str, Any]] = {}  # configuration by number
        self._retries: list[int] = []

    @property
    def outcomes(self) -> dict[int, Outcome]:
        """Of ended trials, by number; the recorder adds to it as trials end."""
        return self._sequence.outcomes

    def use_lookup(self, lookup: Lookup) -> None:
        """Look up the outcome of each configuration before it is trained; None = train it."""
        self._lookup = lookup

    def use_fingerprint(self, fingerprint: Callable[[dict[str, Any]], str]) -> None:
        """Name the configuration, code and data of each trial, so that it finds its own checkpoint."""
        self._fingerprint = fingerprint

    def stop(self) -> None:
        """Start no further trial."""
        self._stopped = True

    def set_search_properties(self, *args: Any, **kwargs: Any) -> bool:
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if self._stopped:
            return None
        sequence = self._sequence
        for number in [number for number in self._running if number in sequence.outcomes]:
            del self._running[number]
        if self._retries:
            return self._running[self._retries.pop(0)]
        if self.cannot_start:
            return None if self._running else self.FINISHED
        while len(sequence.drawn) < self._total:
            if len(self._running) >= self._concurrency or not sequence.ready():
                return None
            number = len(sequence.drawn)
            if number not in sequence.outcomes and not self._may_start(len(self._running)):
                return None if self._running else self.FINISHED
            parameters = sequence.draw()
            if number in sequence.outcomes:
                continue
            rules = self._stopping.rules(
                number, sequence.known(number), with_models=self._with_models
            )
            if (outcome := self._lookup(number, parameters, rules)) is not None:
                sequence.outcomes[number] = outcome
                continue
            self._running[number] = {
                "number": number,
                "parameters": parameters,
                "rules": pickle.dumps(rules),  # see ``Trial``
                "fingerprint": self._fingerprint(parameters),
            }
            return self._running[number]
        ended = all(number in sequence.outcomes for number in range(self._total))
        return self.FINISHED if ended else None

    def retry(self, number: int) -> None:
        """Hand out a trial once more."""
        self._retries.append(number)

    @property
    def cannot_start(self) -> bool:
        """Whether no further trial starts, since in each of the places for trials one could not."""
        return self._concurrency <= 0

    def lose_place(self) -> None:
        """Run one trial less at once: where a worker cannot start, the next one cannot either."""
        self._concurrency -= 1

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """The recorder adds the outcome to the sequence, before the next ``suggest``."""

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its searcher for a restore that this project does not use."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).write_bytes(pickle.dumps({}))

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: a study resumes from its own store."""
