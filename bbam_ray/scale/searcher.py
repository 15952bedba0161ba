"""Ray Tune's side of the search: it hands out the configurations of a ``Sequence``."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray.tune.search import Searcher

from bbam_ray.engine.early_stopping import Bar
from bbam_ray.scale.early_stopping import Stopping
from bbam_ray.scale.outcomes import Outcome
from bbam_ray.scale.search import Sequence

Answer = Callable[[int, dict[str, Any], Bar | None], Outcome | None]


class StudySearcher(Searcher):
    """Hands numbered configurations to Ray Tune, each with the bar that the trial must reach.

    Args:
        sequence: numbered configurations; its outcomes are added by the recorder as trials end.
        total: trials of the study, those done before included.
        concurrency: trials at once.
        stopping: makes the bars.
        may_start: whether the budget allows one more trial beside those that run.
        answer: the outcome of a configuration that was trained before, stored as the trial's own; None
            where it has to be trained.
    """

    def __init__(
        self,
        sequence: Sequence,
        total: int,
        concurrency: int,
        stopping: Stopping,
        may_start: Callable[[int], bool] = lambda running: True,
        answer: Answer = lambda number, values, bar: None,
    ) -> None:
        super().__init__()
        self._sequence, self._total, self._concurrency = sequence, total, concurrency
        self._stopping, self._may_start, self._answer = stopping, may_start, answer
        self._running: set[int] = set()

    def set_search_properties(self, *args: Any, **kwargs: Any) -> bool:
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        sequence = self._sequence
        self._running -= sequence.outcomes.keys()
        while len(sequence.drawn) < self._total:
            if len(self._running) >= self._concurrency or not sequence.ready():
                return None
            number = len(sequence.drawn)
            if number not in sequence.outcomes and not self._may_start(len(self._running)):
                return None if self._running else self.FINISHED
            values = sequence.draw()
            if number in sequence.outcomes:
                continue
            bar = self._stopping.bar(number, sequence.known(number))
            if (outcome := self._answer(number, values, bar)) is not None:
                sequence.outcomes[number] = outcome
                continue
            self._running.add(number)
            return {"number": number, "parameters": values, "bar": bar}
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
