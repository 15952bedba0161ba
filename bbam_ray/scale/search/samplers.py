"""The samplers of a search. To add one, write its function here and name it in ``SAMPLERS``.

Optuna is imported when a sampler is made, so that ``SAMPLERS`` costs a command line nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bbam_ray.errors import UsageError, nearest

if TYPE_CHECKING:
    import optuna

    from bbam_ray.scale.search.space import Space

Suggest = Callable[["optuna.Study", int], dict[str, Any]]


@dataclass(frozen=True)
class Sampler:
    """One way to draw configurations.

    Args:
        summary: a few words for help texts.
        make: takes the search space and the seed of the study; returns a function that takes the Optuna
            study and a trial number, adds the trial to the study as running, and returns its
            configuration. The draw may depend on space, seed, number and study, and on nothing else.
    """

    summary: str
    make: Callable[[Space, int], Suggest]


def find_sampler(name: str) -> Sampler:
    """The sampler of a name.

    Raises:
        UsageError: there is no sampler of this name.
    """
    if name not in SAMPLERS:
        raise UsageError(f"sampler '{name}' is unknown; {nearest(name, SAMPLERS)}")
    return SAMPLERS[name]


def _tpe(seed: int) -> optuna.samplers.BaseSampler:
    from optuna.samplers import TPESampler

    # constant_liar: running trials count as bad ones, so that parallel draws spread out.
    # gamma: the objective is noisy, so the best quarter of the trials counts as good; with Optuna's
    # default of a tenth, a search of ten trials would follow a single lucky one.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # it may be renamed in Optuna 6
        return TPESampler(multivariate=True, constant_liar=True, seed=seed, gamma=_best_quarter)


def _best_quarter(trials: int) -> int:
    return min(-(-trials // 4), 25)


def _gp(seed: int) -> optuna.samplers.BaseSampler:
    from optuna.samplers import GPSampler

    # Its model of the objective has a noise term, whose size it fits.
    return GPSampler(seed=seed, warn_independent_sampling=False, deterministic_objective=False)


def _random(seed: int) -> optuna.samplers.BaseSampler:
    from optuna.samplers import RandomSampler

    return RandomSampler(seed=seed)


def _seeded_per_trial(
    make_sampler: Callable[[int], optuna.samplers.BaseSampler],
) -> Callable[[Space, int], Suggest]:
    """A sampler of Optuna that is created for each trial, with the seed (study seed, trial number)."""

    def make(space: Space, seed: int) -> Suggest:
        import numpy as np

        def suggest(study: optuna.Study, number: int) -> dict[str, Any]:
            trial_seed = np.random.SeedSequence([seed, number]).generate_state(1)[0]
            study.sampler = make_sampler(int(trial_seed))
            return space.suggest(study.ask())

        return suggest

    return make


class _Sobol:
    """Points of a scrambled Sobol sequence by trial number; they depend on no outcome.

    They come from a separate study in which every trial is drawn in order: Optuna counts the points
    that it has drawn, and a resumed study must not start counting again.
    """

    def __init__(self, space: Space, seed: int) -> None:
        from optuna.exceptions import ExperimentalWarning
        from optuna.samplers import QMCSampler

        from bbam_ray.scale.search.optuna_study import new_study, running_trial

        self._space, self._running_trial = space, running_trial
        self._points = [space.published]
        self._study = new_study(space)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            self._study.sampler = QMCSampler(
                scramble=True, seed=seed, warn_independent_sampling=False
            )
        # The sampler takes its dimensions from the first completed trial.
        self._study.add_trial(running_trial(space, space.published))
        self._study.tell(0, [0.0 for _ in space.objectives])

    def __call__(self, study: optuna.Study, number: int) -> dict[str, Any]:
        while len(self._points) <= number:
            self._points.append(self._space.suggest(self._study.ask()))
        study.add_trial(self._running_trial(self._space, self._points[number]))
        return self._points[number]


SAMPLERS = {
    "tpe": Sampler("tree-structured Parzen estimator", _seeded_per_trial(_tpe)),
    "gp": Sampler("Gaussian process", _seeded_per_trial(_gp)),
    "qmc": Sampler("scrambled Sobol sequence", _Sobol),
    "random": Sampler("independent draws", _seeded_per_trial(_random)),
}
