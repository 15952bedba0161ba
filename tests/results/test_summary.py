"""Figures over seeds against the standard library."""

from __future__ import annotations

import math
import statistics
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bbam_ray.results.summary import confirmed_metrics


def row(rank: int, number: int, value: float | None, **others: Any) -> dict[str, Any]:
    return {"rank": rank, "number": number, "test_map": value} | others


def test_mean_deviation_and_error_over_seeds_by_rank() -> None:
    values = {(2, 0): [0.5, 0.7], (1, 6): [0.81, 0.79, 0.83, 0.8]}
    rows = [row(*key, value) for key, found in values.items() for value in found]
    figures = confirmed_metrics(reversed(rows))
    assert [(f.rank, f.number, f.seeds) for f in figures] == [(1, 6, 4), (2, 0, 2)]
    for figure in figures:
        found = values[figure.rank, figure.number]
        deviation = statistics.stdev(found)
        assert figure.mean == pytest.approx(statistics.fmean(found))
        assert figure.deviation == pytest.approx(deviation)
        assert figure.standard_error == pytest.approx(deviation / math.sqrt(len(found)))


def test_a_single_seed_has_no_deviation() -> None:
    (figure,) = confirmed_metrics([row(1, 3, 0.5)])
    assert (figure.mean, figure.seeds) == (0.5, 1)
    assert figure.deviation is None and figure.standard_error is None


def test_failed_runs_are_left_out() -> None:
    rows = [row(1, 3, 0.5), row(1, 3, None), row(1, 3, math.nan), row(2, 4, None)]
    (figure,) = confirmed_metrics(rows)
    assert (figure.mean, figure.seeds) == (0.5, 1)
    assert confirmed_metrics([]) == []


def test_another_measure_can_be_asked_for() -> None:
    (figure,) = confirmed_metrics([row(1, 3, 0.5, test_micro_f1=0.25)], "test_micro_f1")
    assert figure.mean == 0.25


def test_a_configuration_that_is_no_longer_among_the_best_is_left_out() -> None:
    rows = [
        row(1, 5, 0.6),
        row(None, 3, 0.9),
        row(float("nan"), 4, 0.8),
    ]  # null, and null in pandas
    assert [(f.rank, f.number) for f in confirmed_metrics(rows)] == [(1, 5)]


def test_the_interval_of_the_mean_is_students() -> None:
    """Three seeds: t with 2 degrees of freedom has its 97.5 % point at 4.302653."""
    (figure,) = confirmed_metrics([row(1, 0, value) for value in (0.6, 0.7, 0.8)])
    low, high = figure.interval
    assert (low + high) / 2 == pytest.approx(0.7)
    assert (high - low) / 2 == pytest.approx(4.302653 * 0.1 / 3**0.5, rel=1e-6)
    (single,) = confirmed_metrics([row(1, 0, 0.6)])
    assert single.interval is None


@given(st.lists(st.floats(0.0, 1.0), min_size=2, max_size=8))
def test_an_interval_of_a_metric_holds_the_mean_and_stays_within_0_and_1(
    values: list[float],
) -> None:
    (figure,) = confirmed_metrics([row(1, 0, value) for value in values])
    low, high = figure.interval
    assert 0.0 <= low <= figure.mean <= high <= 1.0 or low == pytest.approx(high)


def test_an_interval_is_cut_at_the_bounds_of_the_metric() -> None:
    (figure,) = confirmed_metrics([row(1, 0, value) for value in (0.99, 1.0)])
    low, high = figure.interval
    assert high == 1.0
    assert low == pytest.approx(0.995 - 12.7062 * 0.005, rel=1e-4)  # t with one degree of freedom
