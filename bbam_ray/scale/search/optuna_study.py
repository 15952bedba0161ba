"""Trials of this project as trials of Optuna."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from bbam_ray.errors import UsageError
from bbam_ray.results import schemas
from bbam_ray.scale import private_api
from bbam_ray.scale.search.outcomes import Outcome
from bbam_ray.scale.search.space import Space

_STATES: dict[str, TrialState] = {
    schemas.COMPLETE: TrialState.COMPLETE,
    schemas.PRUNED: TrialState.PRUNED,
    schemas.FAILED: TrialState.FAIL,
}


def new_study(space: Space, **options: Any) -> optuna.Study:
    """An empty study with the objectives of a space; the options are those of ``create_study``."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    up, down = optuna.study.StudyDirection.MAXIMIZE, optuna.study.StudyDirection.MINIMIZE
    directions = [up if mode == "max" else down for _, mode in space.objectives]
    return optuna.create_study(directions=directions, **options)


def running_trial(space: Space, values: dict[str, Any]) -> FrozenTrial:
    """A trial that has started with a configuration.

    Raises:
        UsageError: the configuration is not in the space.
    """
    try:
        return optuna.trial.create_trial(
            state=TrialState.RUNNING, params=values, distributions=_distributions(space, values)
        )
    except (ValueError, KeyError) as error:
        raise UsageError(
            f"the search space no longer holds the configurations of this study ({error}); "
            "use another --name for a changed space, with --warm-start to reuse these trials"
        ) from None


def ended_trial(space: Space, outcome: Outcome) -> FrozenTrial:
    """A trial that has ended."""
    complete = outcome.state == schemas.COMPLETE
    return optuna.trial.create_trial(
        state=_STATES[outcome.state],
        values=outcome.values if complete else None,
        params=outcome.parameters,
        distributions=_distributions(space, outcome.parameters),
        intermediate_values=_values_by_epoch(space, outcome),
        user_attrs={"number": outcome.number, "error": outcome.error},
    )


def end_trial(study: optuna.Study, number: int, space: Space, outcome: Outcome) -> None:
    """End a running trial of a study.

    Args:
        number: of the trial in the Optuna study.
    """
    private_api.set_values_by_epoch(study, number, _values_by_epoch(space, outcome))
    # Optuna takes the value of a pruned trial from its values by epoch.
    values = outcome.values if outcome.state == schemas.COMPLETE else None
    study.tell(number, values, state=_STATES[outcome.state])


def _values_by_epoch(space: Space, outcome: Outcome) -> dict[int, float]:
    """Optuna has intermediate values for studies with one objective only."""
    return outcome.by_epoch if len(space.objectives) == 1 else {}


def _distributions(space: Space, names: Iterable[str]) -> dict[str, Any]:
    return {name: space.parameters[name].distribution() for name in names}
