"""What a budget allows: no trial more than fits, a part kept back, and plain words on what is left."""

from __future__ import annotations

import pytest

from bbam_ray.scale.study import budget as budgets
from bbam_ray.scale.study.budget import Budget, Use
from bbam_ray.scale.study.plan import Limits

HOUR = 3600.0


@pytest.fixture()
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(budgets.time, "monotonic", lambda: now[0])
    return now


def test_without_limits_everything_may_start(clock: list[float]) -> None:
    budget = Budget(Limits(), 1.0, Use(1e6, 10, 1e6), 3)
    clock[0] += 1e9
    assert budget.may_start(5)
    assert not budget.over()
    assert budget.left() == ""


def test_the_tighter_limit_counts() -> None:
    assert Limits(gpu_hours=5.0, cost=6.0, price=2.0).total_gpu_hours == 3.0
    assert Limits(gpu_hours=2.0, cost=6.0, price=2.0).total_gpu_hours == 2.0
    assert Limits(price=2.0).total_gpu_hours is None
    assert Limits(price=2.0).cost_of(1.5) == 3.0
    assert Limits().cost_of(1.5) is None


def test_trials_start_as_long_as_their_mean_fits(clock: list[float]) -> None:
    """Ten GPU-hours, two of them for two confirmations: eight trials of an hour on one GPU."""
    budget, trials = Budget(Limits(gpu_hours=10.0), 1.0, Use(), 2), 0
    while budget.may_start(0):
        budget.started(trials)
        clock[0] += HOUR
        assert not budget.over()
        assert budget.ended(trials, HOUR, complete=True) == 1.0
        trials += 1
    assert trials == 8
    assert budget.reached
    assert not budget.may_start(0)  # and it stays so


def test_running_trials_count(clock: list[float]) -> None:
    budget = Budget(Limits(gpu_hours=4.0), 0.5, Use(2.0, 4, 2.0), 0)
    assert budget.may_start(2)
    assert budget.may_start(3)
    assert not budget.may_start(4)
    budget = Budget(Limits(gpu_hours=4.0), 2.0, Use(), 0)
    budget.started(0)
    budget.started(1)
    clock[0] += 0.9 * HOUR
    assert budget.gpu_hours == pytest.approx(3.6)
    assert not budget.over()
    clock[0] += 0.2 * HOUR
    assert budget.stop_all()
    assert budget.reached


def test_earlier_runs_of_a_study_count_for_gpu_hours_but_not_for_time(clock: list[float]) -> None:
    limits = Limits(seconds=60.0, gpu_hours=3.0)
    budget = Budget(limits, 1.0, Use(2.5, 2, 2.0), 0)
    assert not budget.over()
    assert not budget.may_start(0)
    clock[0] += 61
    assert budget.over()


def test_money_is_gpu_hours_times_price(clock: list[float]) -> None:
    budget = Budget(Limits(cost=9.0, price=3.0), 1.0, Use(1.0, 1, 1.0), 0)
    assert budget.left() == "6.00 of 9 (money)"
    assert budget.may_start(1)
    assert not budget.may_start(2)


def test_what_is_left_in_words(clock: list[float]) -> None:
    budget = Budget(Limits(600.0, 5.0, 20.0, 2.0), 1.0, Use(1.0, 1, 1.0), 0)
    budget.started(0)
    clock[0] += 300
    assert budget.left() == "5.0 of 10 min, 3.92 of 5 GPU-hours, 17.83 of 20 (money)"
    clock[0] += 1e6
    assert budget.left() == "0.0 of 10 min, 0.00 of 5 GPU-hours, 0.00 of 20 (money)"


def test_what_is_kept_back_is_that_of_trials_in_full(clock: list[float]) -> None:
    """Trials that were stopped early say nothing of what a confirmation takes."""
    budget = Budget(Limits(gpu_hours=10.0), 1.0, Use(), 4)
    for number, (hours, complete) in enumerate([(2.0, True), (0.25, False), (0.25, False)]):
        budget.started(number)
        clock[0] += hours * HOUR
        budget.ended(number, hours * HOUR, complete=complete)
    assert not budget.may_start(0)  # 2.5 are used, and five runs of 2 would follow
    budget = Budget(Limits(gpu_hours=12.5), 1.0, Use(2.5, 1, 2.0), 4)
    assert budget.may_start(0)


def test_trials_that_run_when_the_search_ends_are_not_forgotten(clock: list[float]) -> None:
    budget = Budget(Limits(), 2.0, Use(), 0)
    budget.started(0)
    budget.started(1)
    clock[0] += HOUR / 2
    budget.ended(0, HOUR / 2, complete=True)
    assert budget.unfinished_hours == 1.0
