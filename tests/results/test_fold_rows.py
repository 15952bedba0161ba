"""Means over folds, and the weights that all folds of a trial keep together."""

from __future__ import annotations

import math
from statistics import fmean
from typing import Any

import pytest

from bbam_ray.results.fold_rows import (
    kept_phase,
    kept_reason,
    kept_rows,
    mean_labels,
    mean_metrics,
    mean_scalars,
    rows_by_fold,
)

Row = dict[str, Any]


def fold(*values: float | None, warmup: int = 2, **last: Any) -> list[Row]:
    """Rows of a fold with these val_map by epoch; the last row has further columns."""
    rows: list[Row] = [
        {"epoch": epoch, "phase": "warmup" if epoch <= warmup else "main", "val_map": value}
        for epoch, value in enumerate(values, start=1)
    ]
    rows[-1] |= last
    return rows


def test_rows_are_grouped_by_fold_in_the_order_of_epochs() -> None:
    rows = [
        {"fold": f, "epoch": e, "value": (f, e)}
        for f, e in ((1, 2), (0, 1), (1, 1), (0, 3), (0, 2))
    ]
    by_fold = rows_by_fold(rows)
    assert list(by_fold) == [0, 1]
    assert [row["value"] for row in by_fold[0]] == [(0, 1), (0, 2), (0, 3)]
    assert [row["value"] for row in by_fold[1]] == [(1, 1), (1, 2)]


def test_rows_without_a_fold_are_of_fold_0() -> None:
    assert list(rows_by_fold([{"epoch": 1}, {"epoch": 2, "fold": None}])) == [0]
    assert rows_by_fold([]) == {}


@pytest.mark.parametrize(
    ("folds", "expected"),
    [
        ([(0.1, 0.5, 0.6), (0.1, 0.5, 0.45)], "last"),  # +0.1 and -0.05
        ([(0.1, 0.5, 0.52), (0.1, 0.5, 0.45)], "warmup"),  # +0.02 and -0.05
        ([(0.1, 0.5, 0.6), (0.1, 0.5, 0.4)], "last"),  # a tie keeps the main phase
        ([(0.9, 0.5, 0.6)], "last"),  # only the end of the warm-up counts
        ([(0.1, 0.5, 0.9, 0.4)], "warmup"),  # and the end of the main phase
        ([(0.1, 0.5)], "last"),  # no main phase
        ([(0.1, None, 0.4)], "last"),  # nothing to compare
        ([(0.1, 0.5, 0.4), (0.1, None, 0.9)], "warmup"),  # folds without a value do not count
    ],
)
def test_all_folds_decide_together_by_their_mean(
    folds: list[tuple[float | None, ...]], expected: str
) -> None:
    by_fold = {number: fold(*values) for number, values in enumerate(folds)}
    assert kept_phase(by_fold, "phase") == expected
    assert kept_phase(by_fold, "best") == "best"
    assert kept_phase(by_fold, "last") == "last"


def test_nothing_measured_keeps_the_last_epoch() -> None:
    assert kept_phase({}, "phase") == "last"
    assert kept_rows({}, "last") == kept_rows({}, "warmup") == kept_rows({}, "best") == []


def test_kept_rows_are_one_per_fold() -> None:
    by_fold = {0: fold(0.1, 0.5, 0.7, 0.4), 1: fold(0.8, 0.5, 0.6), 2: fold(0.3)}
    epochs = {
        p: [row["epoch"] for row in kept_rows(by_fold, p)] for p in ("warmup", "best", "last")
    }
    assert epochs == {"warmup": [2, 2, 1], "best": [3, 1, 1], "last": [4, 3, 1]}


def test_the_best_epoch_is_the_first_of_equal_ones_and_never_one_without_a_value() -> None:
    (row,) = kept_rows({0: fold(None, 0.6, 0.6, 0.1)}, "best")
    assert row["epoch"] == 2


def test_the_reason_names_both_means_and_what_is_known_of_the_pseudo_labels() -> None:
    by_fold = {
        0: fold(0.1, 0.50, 0.40, pseudo_precision=0.5, flipped=0.10),
        1: fold(0.1, 0.60, 0.46, pseudo_precision=0.7, flipped=0.16),
    }
    reason = kept_reason(by_fold, "warmup")
    assert reason == (
        "warmup: the main phase lowered val_map from 0.550 to 0.430; precision of its pseudo-labels "
        "0.60; it changed 13.0% of the decisions on validation samples"
    )
    unknown = kept_reason({0: fold(0.1, 0.5, 0.4, pseudo_precision=None)}, "warmup")
    assert unknown == "warmup: the main phase lowered val_map from 0.500 to 0.400"
    assert kept_reason(by_fold, "last") == "last" and kept_reason(by_fold, "best") == "best"


def test_metrics_are_means_of_what_is_known() -> None:
    rows: list[Row] = [
        {"epoch": 3, "val_map": 0.5, "val_f1": None, "val_x": math.nan, "loss": 9.0},
        {"epoch": 4, "val_map": 0.7, "val_f1": 0.2, "val_x": math.nan, "loss": 1.0},
    ]
    assert mean_metrics(rows) == {"val_map": pytest.approx(0.6), "val_f1": 0.2, "val_x": None}
    assert mean_metrics([]) == {}


def test_an_epoch_over_folds_has_means_and_the_texts_of_the_first_fold() -> None:
    first = {"epoch": 2, "phase": "main", "loss": 1.0, "seconds": 4, "lr": None, "nan": math.nan}
    second = {"epoch": 2, "phase": "warmup", "loss": 2.0, "seconds": 1, "lr": 0.5}
    row = mean_scalars([first, second])
    assert row == {
        "epoch": 2, "phase": "main", "loss": 1.5, "seconds": 2.5, "lr": 0.5, "nan": None,
    }  # fmt: skip


def test_one_fold_is_left_as_it_is() -> None:
    alone = {"epoch": 2, "lr": None, "nan": math.nan}
    row = mean_scalars([alone])
    assert row is not alone and row["lr"] is None and math.isnan(row["nan"])
    assert mean_labels([{"prior": (0.1, None)}]) == {"prior": [0.1, None]}


def test_labels_over_folds_are_means_by_label_also_of_histograms() -> None:
    folds = [
        {"prior": [0.1, 0.5], "gap": [math.nan, 1.0], "angles": [[1, 2, 3], [0, 0, 4]]},
        {"prior": [0.3, 0.5], "gap": [2.0, math.nan], "angles": [[3, 2, 1], [0, 2, 0]]},
    ]
    means = mean_labels(folds)
    assert means["prior"] == [pytest.approx(0.2), 0.5]
    assert means["gap"] == [2.0, 1.0]
    expected = [
        [fmean(pair) for pair in zip(*(each["angles"][k] for each in folds), strict=True)]
        for k in range(2)
    ]
    assert means["angles"] == expected == [[2, 2, 2], [0, 1, 2]]
