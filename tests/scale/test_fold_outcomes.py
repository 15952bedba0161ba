"""Trials with folds as the search sees them: rows, outcomes, pruning between folds, the choice."""

from __future__ import annotations

import math
from statistics import fmean, stdev
from typing import Any

import pytest

from bbam_ray.engine.pruning_rule import FoldRule
from bbam_ray.results.schemas import COMPLETE, FAILED, PRUNED
from bbam_ray.scale.search.choice import choose, distance
from bbam_ray.scale.search.outcomes import Outcome, outcome_of, trial_row
from bbam_ray.scale.search.pruning import Stopping
from bbam_ray.scale.search.space import Space

Row = dict[str, Any]
IDENTITY = {"study": "s", "trial_id": "t00003", "number": 3}
SPACE = Space.model_validate(
    {
        "parameters": {
            "margin": {"type": "float", "low": 0.0, "high": 1.0},
            "learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True},
            "balance": {"type": "categorical", "choices": [True, False]},
            "clamp": {"type": "categorical", "choices": [True, False], "when": {"balance": True}},
        },
        "published": {"margin": 0.4, "learning_rate": 1e-3, "balance": True, "clamp": False},
    }
)
PUBLISHED = dict(SPACE.published)


def epoch(fold: int | None, number: int, value: float | None, **others: Any) -> Row:
    phase = "warmup" if number <= 2 else "main"
    row: Row = {"epoch": number, "phase": phase, "val_map": value, "val_f1": 0.5}
    times = {"seconds_refresh": 1.0, "seconds_train": 2.0, "seconds_evaluate": None}
    return row | times | others | ({} if fold is None else {"fold": fold})


def row_of(history: list[Row], state: str = COMPLETE, **options: Any) -> Row:
    return trial_row(IDENTITY, {"margin": 0.3}, state, history, SPACE, None, **options)


FOLDS = [
    *(epoch(0, n, v) for n, v in enumerate((0.1, 0.5, 0.7), start=1)),
    *(epoch(1, n, v) for n, v in enumerate((0.1, 0.4, 0.8, 0.6), start=1)),
    *(epoch(2, n, v) for n, v in enumerate((0.1, 0.6, 0.5), start=1)),
]


def test_the_row_of_a_trial_has_means_over_its_folds_and_their_standard_error() -> None:
    row = row_of(FOLDS)
    assert row["val_map"] == pytest.approx(fmean((0.7, 0.6, 0.5)))
    assert row["standard_error"] == pytest.approx(stdev((0.7, 0.6, 0.5)) / math.sqrt(3))
    assert (row["folds"], row["kept"], row["best_epoch"], row["epochs"]) == (3, "last", 3, 4)
    assert row["seconds_per_epoch"] == 3.0
    assert row["state"] == COMPLETE and row["param_margin"] == 0.3


def test_the_warm_up_of_all_folds_is_kept_where_the_main_phase_lowers_their_mean() -> None:
    history = [row if row["fold"] else row | {"val_map": row["val_map"] / 2} for row in FOLDS]
    history = [row | {"val_map": 0.3} if row["epoch"] > 2 else row for row in history]
    row = row_of(history)
    assert row["val_map"] == pytest.approx(fmean((0.25, 0.4, 0.6)))
    assert row["best_epoch"] == 2
    assert row["kept"].startswith("warmup: the main phase lowered val_map from 0.417 to 0.300")
    assert row_of(history, keep="last")["val_map"] == pytest.approx(0.3)


def test_keep_best_takes_the_best_epoch_of_each_fold() -> None:
    row = row_of(FOLDS, keep="best")
    assert row["val_map"] == pytest.approx(fmean((0.7, 0.8, 0.6)))
    assert row["kept"] == "best"


def test_one_fold_has_the_bootstrap_error_of_the_phase_that_is_kept() -> None:
    history = [epoch(None, n, v) for n, v in enumerate((0.1, 0.5, 0.7), start=1)]
    errors = {"last": 0.03, "warmup": 0.05}
    assert row_of(history, bootstrap_error=errors)["standard_error"] == 0.03
    lowered = [*history[:2], epoch(None, 3, 0.4)]
    assert row_of(lowered, bootstrap_error=errors)["standard_error"] == 0.05
    assert row_of(history)["standard_error"] is None
    assert row_of(history)["folds"] == 1


def test_a_trial_without_any_value_has_failed_and_says_why() -> None:
    row = row_of([epoch(0, 1, None)])
    assert row["state"] == FAILED and row["error"] == "no epoch ended with a value of val_map"
    assert row["kept"] is None and row["standard_error"] is None
    nothing = row_of([])
    assert nothing["state"] == FAILED and nothing["folds"] is None and nothing["epochs"] == 0


@pytest.mark.parametrize("keep", ["phase", "last", "best"])
def test_a_stored_trial_has_the_values_of_its_kept_weights_by_fold(keep: str) -> None:
    row = row_of(FOLDS, keep=keep) | {"pareto": None}
    outcome = outcome_of(row, FOLDS, SPACE)
    expected = [0.7, 0.8, 0.6] if keep == "best" else [0.7, 0.6, 0.5]
    assert outcome.by_fold == expected
    assert outcome.values == (pytest.approx(fmean(expected)),)
    assert outcome.standard_error == row["standard_error"]
    assert outcome.by_epoch == {1: 0.1, 2: 0.5, 3: 0.7}  # of the first fold, for pruning by epoch
    assert outcome.parameters == {"margin": 0.3}


def test_the_kept_weights_of_a_stored_trial_are_those_that_its_row_names() -> None:
    history = [row | {"val_map": 0.3} if row["epoch"] > 2 else row for row in FOLDS]
    outcome = outcome_of(row_of(history), history, SPACE)
    assert outcome.by_fold == [0.5, 0.4, 0.6]
    (alone,) = [outcome_of(row_of(history[:3]), history[:3], SPACE).by_fold]
    assert alone == []  # a single fold


# ---------------------------------------------------------------- pruning between folds


def stopping(mode: Any = "max", folds: int = 3) -> Stopping:
    values = {"grace": 3, "warmup": 2, "epochs": 8, "reduction": 3, "metric": "val_map"}
    return Stopping("none", **values, mode=mode, folds=folds)


def outcome(number: int, *by_fold: float, state: str = COMPLETE, error: float = 0.02) -> Outcome:
    value = fmean(by_fold) if by_fold else 0.5
    return Outcome(number, {}, state, (value,), {}, None, list(by_fold), error)


def test_trials_are_compared_with_the_best_complete_one() -> None:
    outcomes = [
        outcome(0, 0.5, 0.6, 0.7, error=0.04),
        outcome(1, 0.9, 0.9, state=PRUNED),
        outcome(2, 0.6, 0.6, 0.9, error=0.05),
        outcome(3, 0.9, 0.9, 0.9, state=FAILED),
        outcome(4, 0.9, 0.9),  # another number of folds
    ]
    rule = stopping().fold_rule(outcomes)
    assert rule == FoldRule("val_map", True, (0.6, 0.6, 0.9), 0.05)
    lower = stopping("min").fold_rule(outcomes)
    assert lower == FoldRule("val_map", False, (0.5, 0.6, 0.7), 0.04)


@pytest.mark.parametrize("mode", ["max", "min"])
def test_the_first_of_equally_good_trials_is_the_one_to_compare_with(mode: str) -> None:
    outcomes = [outcome(5, 0.7, 0.5, 0.6), outcome(2, 0.5, 0.7, 0.6), outcome(9, 0.6, 0.7, 0.5)]
    rule = stopping(mode).fold_rule(outcomes)
    assert rule is not None and rule.best == (0.5, 0.7, 0.6)


def test_without_a_complete_trial_none_is_pruned_and_with_one_fold_there_is_no_rule() -> None:
    rule = stopping().fold_rule([outcome(1, 0.9, 0.9, state=PRUNED)])
    assert rule == FoldRule("val_map", True, (), 0.0) and not rule.stops([0.0])
    assert stopping(folds=1).fold_rule([outcome(0)]) is None


def test_a_best_trial_without_a_known_error_leaves_no_margin() -> None:
    unknown = Outcome(0, {}, COMPLETE, (0.5,), {}, None, [0.5, 0.5, 0.5], None)
    rule = stopping().fold_rule([unknown])
    assert rule is not None and rule.margin == 0.0


def test_the_rules_of_a_trial_are_both_rules() -> None:
    outcomes = iter([outcome(0, 0.5, 0.6, 0.7)])
    rules = stopping().rules(1, outcomes, with_models=True)
    assert rules.pruning is None and rules.with_models
    assert rules.folds == FoldRule("val_map", True, (0.5, 0.6, 0.7), 0.02)


# ---------------------------------------------------------------- the choice


def trial(number: int, by_fold: list[float], state: str = COMPLETE, **changes: Any) -> Row:
    parameters = {f"param_{name}": value for name, value in {**PUBLISHED, **changes}.items()}
    return {
        "number": number,
        "state": state,
        "val_map": fmean(by_fold),
        "by_fold": by_fold,
    } | parameters


def chosen(*trials: Row, space: Space = SPACE, **options: Any) -> int | None:
    outcomes = {
        row["number"]: Outcome(
            row["number"], {}, row["state"], (row["val_map"],), by_fold=row["by_fold"]
        )
        for row in trials
    }
    row = choose(trials, outcomes, space, **options)
    return None if row is None else row["number"]


def test_the_closest_to_the_published_settings_within_one_standard_error_is_chosen() -> None:
    best = trial(1, [0.70, 0.80, 0.75], margin=0.9)
    # Differences 0.01, 0.04, -0.01: mean 0.0133, standard error 0.0145.
    near = trial(0, [0.69, 0.76, 0.76])
    assert chosen(best, near) == 0
    # Differences 0.02, 0.01, 0.02: a third of the gap above as noise, and not noise itself.
    worse = trial(0, [0.68, 0.79, 0.73])
    assert chosen(best, worse) == 1
    closer, farther = trial(2, near["by_fold"], margin=0.5), trial(3, near["by_fold"], margin=1.0)
    assert chosen(best, farther, closer) == 2
    assert chosen(best, farther) == 1


def test_folds_are_paired() -> None:
    """Folds differ by far more than the two trials, and each in the same direction."""
    best = trial(1, [0.30, 0.60, 0.90], margin=0.9)
    assert chosen(best, trial(0, [0.28, 0.58, 0.881])) == 1
    # The same values in other folds.
    assert chosen(best, trial(0, [0.881, 0.28, 0.58])) == 0


def test_equal_trials_are_within_noise_and_of_equally_close_ones_the_better_is_chosen() -> None:
    folds = [0.5, 0.6, 0.7]
    assert chosen(trial(4, folds, margin=0.9), trial(7, folds)) == 7
    pair = trial(1, [0.5, 0.6, 0.72], margin=0.3), trial(0, folds, margin=0.3)
    assert chosen(*pair) == 1


def test_lower_is_better_for_a_loss() -> None:
    space = SPACE.model_copy(update={"mode": "min"})
    best, near, worse = (
        trial(1, [0.20, 0.30, 0.25], margin=0.9),
        trial(0, [0.21, 0.34, 0.24]),
        trial(2, [0.4, 0.5, 0.45]),
    )
    assert chosen(best, near, worse, space=space) == 0
    assert chosen(best, worse, space=space) == 1


def test_trials_that_are_not_complete_are_not_chosen() -> None:
    best = trial(1, [0.7, 0.8, 0.75], margin=0.9)
    assert chosen(best, trial(0, [0.7, 0.8, 0.75], PRUNED)) == 1
    assert chosen(trial(0, [0.7, 0.8], PRUNED)) is None and chosen() is None
    # A number of folds that differs says nothing about the difference.
    assert chosen(best, trial(0, [0.7, 0.79])) == 1


def test_with_one_fold_the_paired_error_of_the_scores_decides() -> None:
    best, other = trial(1, [0.70], margin=0.9), trial(0, [0.68])
    for row in (best, other):
        row["by_fold"] = []
    asked = []

    def error(first: int, second: int) -> float:
        asked.append((first, second))
        return 0.02001

    assert chosen(best, other) == 1  # unknown
    assert chosen(best, other, paired_error=error) == 0
    assert chosen(best, other, paired_error=lambda first, second: 0.01) == 1
    assert asked == [(1, 0)]


def test_with_several_objectives_the_first_of_the_pareto_set_is_chosen() -> None:
    space = SPACE.model_copy(update={"also": (("seconds_per_epoch", "min"),)})
    best = trial(1, [0.7, 0.8, 0.75], margin=0.9) | {"pareto": True}
    equal = trial(0, [0.7, 0.8, 0.75]) | {"pareto": False}
    assert chosen(best, equal, space=space) == 1


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 0),
        ({"margin": 0.65}, 0.25),
        ({"learning_rate": 1e-2}, 0.5),  # half of the logarithmic range
        ({"clamp": True}, 1),
        ({"balance": False, "clamp": None}, 2),  # another choice, and a parameter that it lacks
        ({"margin": 0.15, "learning_rate": 1e-4}, 0.75),
    ],
)
def test_the_distance_is_a_sum_of_shares_of_the_ranges(changes: Row, expected: float) -> None:
    values = {n: v for n, v in {**PUBLISHED, **changes}.items() if v is not None}
    assert distance(SPACE, values) == pytest.approx(expected)


def test_a_range_of_a_single_value_has_no_distance() -> None:
    margin = {"type": "float", "low": 0.4, "high": 0.4}
    space = Space.model_validate({"parameters": {"margin": margin}, "published": {"margin": 0.4}})
    assert distance(space, {"margin": 0.4}) == 0
