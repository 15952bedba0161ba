"""Multi-label metrics against scikit-learn, loops and golden values."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    average_precision_score,
    coverage_error,
    f1_score,
    hamming_loss,
    label_ranking_loss,
)

from bbam_ray.core.metric_names import METRIC_NAMES
from bbam_ray.core.metrics import average_precision, multilabel_metrics

GOLDEN = Path(__file__).parents[1] / "golden" / "metrics.npz"


def drawn(seed: int, tied: bool) -> tuple[np.ndarray, np.ndarray]:
    """Some samples have no positive and some only positives; every label has both."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((80, 5)) < [0.1, 0.3, 0.5, 0.7, 0.9]).astype(np.int64)
    labels[:4], labels[4:8] = 0, 1
    scores = rng.random((80, 5)) * 0.7 + 0.3 * labels
    return (np.round(scores, 1) if tied else scores), labels


def measured(scores: np.ndarray, labels: np.ndarray, thresholds: float = 0.5) -> dict[str, float]:
    return multilabel_metrics(
        torch.from_numpy(scores), torch.from_numpy(labels), thresholds=thresholds
    )


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_metrics_agree_with_scikit_learn(seed: int, tied: bool) -> None:
    scores, labels = drawn(seed, tied)
    got, predicted = measured(scores, labels, 0.55), scores >= 0.55
    precision = [average_precision_score(labels[:, k], scores[:, k]) for k in range(5)]
    each = average_precision(torch.from_numpy(scores), torch.from_numpy(labels))
    np.testing.assert_allclose(each, precision, rtol=1e-12)
    expected = {
        "map": np.mean(precision),
        "map_absent_zero": np.mean(precision),
        "micro_f1": f1_score(labels, predicted, average="micro", zero_division=0),
        "macro_f1": f1_score(labels, predicted, average="macro", zero_division=0),
        "hamming_loss": hamming_loss(labels, predicted),
        "ranking_loss": label_ranking_loss(labels, scores),
        # A row without labels has the depth 0 in scikit-learn, and adds 0 here.
        "coverage": (coverage_error(labels, scores) - labels.any(axis=1).mean()) / 5,
    }
    for name, value in expected.items():
        assert got[name] == pytest.approx(value, rel=1e-6), name


def test_oracle_metrics_predict_the_true_number_of_labels_of_each_sample() -> None:
    scores, labels = drawn(7, tied=False)
    predicted = np.zeros_like(labels)
    for row, (score, truth) in enumerate(zip(scores, labels, strict=True)):
        predicted[row, np.argsort(-score)[: truth.sum()]] = 1
    got = measured(scores, labels)
    assert got["micro_f1_oracle_k"] == pytest.approx(f1_score(labels, predicted, average="micro"))
    assert got["macro_f1_oracle_k"] == pytest.approx(f1_score(labels, predicted, average="macro"))
    assert got["hamming_loss_oracle_k"] == pytest.approx(hamming_loss(labels, predicted))
    wrong = [labels[i, np.argmax(scores[i])] == 0 for i in range(len(labels))]
    assert got["one_error"] == pytest.approx(np.mean(wrong))


def test_golden_metrics() -> None:
    z = np.load(GOLDEN)
    got = measured(z["scores"], z["targets"].astype(np.int64))
    names = {
        "map_absent_zero": "oracle_k_macro_ap",
        "coverage": "oracle_k_coverage",
        "one_error": "oracle_k_one_error",
        "ranking_loss": "oracle_k_ranking_loss",
        "micro_f1_oracle_k": "oracle_k_micro_f1",
        "macro_f1_oracle_k": "oracle_k_macro_f1",
        "hamming_loss_oracle_k": "oracle_k_hamming_loss",
        "micro_f1": "threshold_micro_f1",
        "macro_f1": "threshold_macro_f1",
        "hamming_loss": "threshold_hamming_loss",
    }
    for ours, theirs in names.items():
        assert got[ours] == pytest.approx(float(z[theirs]), rel=1e-9), ours
    present = (z["targets"] == 1).any(axis=0)
    assert got["map"] == pytest.approx(got["map_absent_zero"] * len(present) / present.sum())


def test_absent_labels_are_left_out_of_one_mean_and_count_zero_in_the_other() -> None:
    scores, labels = drawn(1, tied=False)
    labels[:, 2] = 0
    precision = [average_precision_score(labels[:, k], scores[:, k]) for k in (0, 1, 3, 4)]
    got = measured(scores, labels)
    assert got["map"] == pytest.approx(np.mean(precision))
    assert got["map_absent_zero"] == pytest.approx(np.sum(precision) / 5)
    each = average_precision(torch.from_numpy(scores), torch.from_numpy(labels))
    assert each.isnan().tolist() == [False, False, True, False, False]


def test_without_any_positive_the_mean_is_unknown_not_perfect() -> None:
    got = measured(np.random.default_rng(0).random((6, 3)), np.zeros((6, 3), dtype=np.int64))
    assert math.isnan(got["map"]) and got["map_absent_zero"] == 0 and got["micro_f1"] == 0


def test_no_samples_give_every_name_and_no_number() -> None:
    got = measured(np.zeros((0, 4)), np.zeros((0, 4), dtype=np.int64))
    assert tuple(got) == METRIC_NAMES
    assert all(math.isnan(value) for value in got.values())
    assert tuple(measured(*drawn(0, tied=False))) == METRIC_NAMES


@pytest.mark.parametrize("place", [1, 2, 10])
def test_a_single_positive_scores_one_over_its_position(place: int) -> None:
    labels = torch.zeros(10, 1, dtype=torch.int64)
    labels[place - 1] = 1
    scores = torch.linspace(1, 0, 10).unsqueeze(1)
    assert float(average_precision(scores, labels)) == pytest.approx(1 / place)


@pytest.mark.parametrize("score", [0.0, 3.0, -math.inf])
def test_constant_scores_have_the_prevalence_as_precision_and_rank_nothing(score: float) -> None:
    labels = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1], [0, 1, 0]])
    scores = np.full(labels.shape, score)
    got = measured(scores, labels)
    assert got["map"] == pytest.approx((2 / 4 + 2 / 4 + 1 / 4) / 3)
    assert got["ranking_loss"] == pytest.approx(1.0)
    assert got["coverage"] == pytest.approx(2 / 3)


def test_the_order_of_samples_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, labels = drawn(5, tied=True)
    whole = measured(scores, labels)
    order = np.random.default_rng(6).permutation(len(scores))
    assert measured(scores[order], labels[order]) == pytest.approx(whole)
    monkeypatch.setattr("bbam_ray.core.rows._BLOCK_ENTRIES", 33)  # many small blocks
    assert measured(scores, labels) == pytest.approx(whole)


def test_each_label_may_have_its_own_threshold_which_counts_as_positive() -> None:
    scores = torch.tensor([[0.2, 0.2], [0.4, 0.4], [0.6, 0.6]])
    labels = torch.tensor([[1, 0], [1, 0], [1, 1]])
    got = multilabel_metrics(scores, labels, thresholds=torch.tensor([0.2, 0.6]))
    assert got["micro_f1"] == got["macro_f1"] == 1.0 and got["hamming_loss"] == 0.0


def test_shapes_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match=r"\(3, 2\).*\(3, 4\)"):
        multilabel_metrics(torch.zeros(3, 2), torch.zeros(3, 4))


def test_perfect_scores_have_coverage_zero_if_most_rows_have_no_label() -> None:
    labels = torch.zeros(10, 6, dtype=torch.int64)
    labels[3, 2] = 1
    assert multilabel_metrics(labels.float(), labels)["coverage"] == 0
    assert multilabel_metrics(torch.rand(4, 6), torch.zeros(4, 6))["coverage"] == 0
