"""Which trial of a search is chosen: the best mean over folds, unless the difference may be noise.

The one-standard-error rule (Breiman et al., Classification and Regression Trees, 1984, section 3.4.3):
of all trials that are worse than the best one by at most the standard error of the difference, the one
closest to the published settings is chosen. Folds are paired, since they differ from each other far more
than configurations do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from statistics import fmean, stdev
from typing import Any

from bbam_ray.results.store import Row
from bbam_ray.scale.search.outcomes import Outcome, parameters_of, ranked
from bbam_ray.scale.search.space import Parameter, Space

#: Standard error of the difference of two trials with one fold, from their numbers; None = unknown.
PairedError = Callable[[int, int], float | None]


def choose(
    trials: Iterable[Row],
    outcomes: Mapping[int, Outcome],
    space: Space,
    paired_error: PairedError = lambda best, other: None,
) -> Row | None:
    """The row of the chosen trial; None if no trial is complete.

    With several objectives the rule does not apply, and the first trial of the Pareto set is chosen.

    Args:
        trials: rows of all trials.
        outcomes: by number.
        space: that was searched.
        paired_error: used for trials with one fold, if val_map is the objective.
    """
    order = ranked(trials, space)
    if not order or len(space.objectives) > 1:
        return order[0] if order else None
    best = order[0]
    near = [
        row
        for row in order
        if row is best or _may_be_noise(outcomes, best, row, space, paired_error)
    ]
    return min(near, key=lambda row: distance(space, parameters_of(row)))


def _may_be_noise(
    outcomes: Mapping[int, Outcome],
    best: Row,
    other: Row,
    space: Space,
    paired_error: PairedError,
) -> bool:
    """Whether another trial is worse than the best by at most one standard error of the difference."""
    folds = [outcomes[row["number"]].by_fold for row in (best, other)]
    if folds[0] and len(folds[0]) == len(folds[1]):
        gaps = [a - b for a, b in zip(*folds, strict=True)]
        return abs(fmean(gaps)) <= stdev(gaps) / math.sqrt(len(gaps))
    if space.metric != "val_map":
        return False
    error = paired_error(best["number"], other["number"])
    gap = abs(best[space.metric] - other[space.metric])
    return error is not None and gap <= error


def distance(space: Space, parameters: Mapping[str, Any]) -> float:
    """Distance of a configuration from the published one.

    The sum over parameters of the difference as a share of the range (of its logarithm where draws are
    logarithmic); 1 for another choice, or for a parameter that only one of the two has.
    """
    total = 0.0
    for name, parameter in space.parameters.items():
        values = [each.get(name) for each in (space.published, parameters)]
        if values[0] == values[1]:
            continue
        if None in values or parameter.choices is not None:
            total += 1.0
        else:
            total += abs(_position(parameter, values[0]) - _position(parameter, values[1]))
    return total


def _position(parameter: Parameter, value: Any) -> float:
    """Position of a number in its range, 0 to 1."""
    assert parameter.low is not None and parameter.high is not None
    low, high, at = parameter.low, parameter.high, float(value)
    if parameter.log:
        low, high, at = math.log(low), math.log(high), math.log(at)
    return (at - low) / (high - low) if high > low else 0.0
