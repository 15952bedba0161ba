"""The order of configurations: Optuna, used so that a study draws the same configurations every time.

Trial n is drawn by a sampler seeded with (study seed, n). The sampler has seen the outcomes of the
trials up to n - lag and, as running trials, the configurations after them. What it sees therefore does
not depend on which of several concurrent trials ends first, and a resumed study draws what it would
have drawn. Outcomes come from the store, by number; Optuna's own storage is only a working copy.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bbam_ray.scale.search.optuna_study import end_trial, ended_trial, new_study, running_trial
from bbam_ray.scale.search.outcomes import Outcome
from bbam_ray.scale.search.samplers import find_sampler
from bbam_ray.scale.search.space import Space


class ConfigSequence:
    """Numbered configurations of a study, drawn in order.

    Args:
        space: the search space.
        seed: of the study.
        lag: how many trials back the newest outcome is that a draw may use; at least the number of
            concurrent trials.
        done: outcomes of an earlier run of the same study.
        sampler: a name in ``SAMPLERS``.
        prior: outcomes of another study, with numbers below 0, available from the first draw.

    Raises:
        UsageError: unknown sampler.
    """

    def __init__(
        self,
        space: Space,
        seed: int,
        lag: int,
        done: Iterable[Outcome] = (),
        *,
        sampler: str = "tpe",
        prior: Iterable[Outcome] = (),
    ) -> None:
        self.space, self.seed, self.lag = space, seed, lag
        self.outcomes = {outcome.number: outcome for outcome in done}
        self.prior = list(prior)
        self.drawn: list[dict[str, Any]] = []
        self._suggest = find_sampler(sampler).make(space, seed)
        self._study = new_study(space)
        for outcome in self.prior:
            self._study.add_trial(ended_trial(space, outcome))
        self._reported = 0  # trials whose outcome Optuna has

    def known(self, number: int) -> list[Outcome]:
        """The outcomes that the configuration and the pruning rule of a trial may depend on."""
        last = number - self.lag
        return self.prior + [o for o in self.outcomes.values() if o.number <= last]

    def ready(self) -> bool:
        """Whether the outcomes that the next draw uses are known."""
        last = len(self.drawn) - self.lag
        return all(number in self.outcomes for number in range(self._reported, last + 1))

    def draw(self) -> dict[str, Any]:
        """The next configuration; that of the store if the trial has been run before."""
        number = len(self.drawn)
        while self._reported <= number - self.lag:
            in_optuna = len(self.prior) + self._reported
            end_trial(self._study, in_optuna, self.space, self.outcomes[self._reported])
            self._reported += 1
        stored = self.outcomes.get(number)
        if stored is None and number >= len(self.space.first):
            values = self._suggest(self._study, number)
        else:
            values = self.space.first[number] if stored is None else stored.parameters
            self._study.add_trial(running_trial(self.space, values))
        self.drawn.append(dict(values))
        return dict(values)
