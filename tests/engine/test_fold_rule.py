"""When a trial ends between two folds, against a naive reference."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bbam_ray.engine.pruning_rule import FoldRule

VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=6)


def naive(values: list[float], best: list[float], margin: float) -> bool:
    """Whether higher is better and the trial is worse than the best one by more than the margin."""
    folds = len(values)
    if folds == 0 or folds >= len(best):
        return False
    return sum(values) / folds < sum(best[:folds]) / folds - margin


@given(values=VALUES, best=VALUES, margin=st.floats(0, 0.3))
def test_both_directions_are_those_of_the_naive_rule(
    values: list[float], best: list[float], margin: float
) -> None:
    distance = sum(values) / len(values) - sum(best[: len(values)]) / len(best[: len(values)])
    if abs(abs(distance) - margin) < 1e-9:
        return  # rounding decides
    assert FoldRule("val_map", True, best, margin).stops(values) == naive(values, best, margin)
    losses, best_losses = [-v for v in values], [-v for v in best]
    lower = FoldRule("val_loss", False, best_losses, margin)
    assert lower.stops(losses) == naive(values, best, margin)


def test_a_gap_of_the_margin_is_forgiven_and_a_larger_one_is_not() -> None:
    best, margin = (0.75, 0.5, 0.5), 0.125
    rule = FoldRule("val_map", True, best, margin)
    assert not rule.stops([0.625]) and rule.stops([0.624])
    assert not rule.stops([0.5, 0.5])  # 0.5 against 0.625
    lower = FoldRule("val_loss", False, best, margin)
    assert not lower.stops([0.875]) and lower.stops([0.876])
    assert not lower.stops([0.1])


def test_a_trial_is_never_pruned_before_its_first_or_after_its_last_fold() -> None:
    rule = FoldRule("val_map", True, (0.9, 0.9), 0.0)
    assert not rule.stops([])
    assert rule.stops([0.0])
    assert not rule.stops([0.0, 0.0])
    assert not FoldRule("val_map", True, (), 0.0).stops([0.0])


@pytest.mark.parametrize("higher", [True, False])
def test_end_is_the_first_count_of_folds_after_which_the_rule_stops(higher: bool) -> None:
    sign = 1 if higher else -1
    best = [sign * v for v in (0.8, 0.6, 0.7, 0.7)]
    rule = FoldRule("metric", higher, best, 0.05)
    cases = {
        (0.8, 0.4, 0.7, 0.7): 2,  # 0.60 against 0.70
        (0.7, 0.9, 0.9, 0.9): 1,
        (0.78, 0.58, 0.68, 0.1): None,  # the last fold is trained in any case
        (0.8, 0.6, 0.5, 0.9): 3,  # 0.633 against 0.70
    }
    for values, end in cases.items():
        assert rule.end([sign * v for v in values]) == end
    assert rule.end([]) is None and rule.end([sign * 0.0]) is None
