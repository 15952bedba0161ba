"""Precision and recall of pseudo-labels against a loop over the entries."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bbam_ray.engine.pseudo_label_records import PseudoLabelAudit


def counted(
    truth: np.ndarray, labels: np.ndarray, confident: np.ndarray
) -> tuple[float | None, float | None, list[float]]:
    right = made = wanted = 0
    by_label = []
    for k in range(truth.shape[1]):
        right_k = made_k = 0
        for i in range(truth.shape[0]):
            wanted += int(truth[i, k])
            if labels[i, k] == 1 and confident[i, k]:
                made_k += 1
                right_k += int(truth[i, k])
        by_label.append(right_k / made_k if made_k else float("nan"))
        right, made = right + right_k, made + made_k
    return (right / made if made else None), (right / wanted if wanted else None), by_label


@pytest.mark.parametrize("seed", range(5))
def test_precision_and_recall_agree_with_counting(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = (rng.random((40, 6)) < 0.3).astype(np.uint8)
    labels = (rng.random((40, 6)) < 0.4).astype(np.int8)
    confident = rng.random((40, 6)) < 0.5
    labels[:, 2] = 0  # a label without pseudo-positives
    rows = [np.arange(40), rng.permutation(40)[:25]][seed % 2]  # all samples, or those of a rank
    judged = PseudoLabelAudit(truth)(
        torch.from_numpy(labels[rows]), torch.from_numpy(confident[rows]), rows
    )
    precision, recall, by_label = counted(truth[rows], labels[rows], confident[rows])
    assert judged["precision"] == pytest.approx(precision)
    assert judged["recall"] == pytest.approx(recall)
    assert judged["precision_by_label"].tolist() == pytest.approx(by_label, nan_ok=True)
    claimed = (labels[rows] == 1) & confident[rows] & (truth[rows] == 1)
    shares = claimed.sum(0) / truth[rows].sum(0)
    assert judged["recall_by_label"].tolist() == pytest.approx(shares.tolist(), nan_ok=True)


def test_undefined_precision_and_recall_are_missing() -> None:
    nothing, all_of_it = torch.zeros(4, 2, dtype=torch.int8), torch.ones(4, 2, dtype=torch.bool)
    none_claimed = PseudoLabelAudit(np.ones((4, 2)))(nothing, all_of_it, np.arange(4))
    assert none_claimed["precision"] is None
    assert none_claimed["recall"] == 0
    none_true = PseudoLabelAudit(np.zeros((4, 2)))(
        torch.ones_like(nothing), all_of_it, np.arange(4)
    )
    assert none_true["precision"] == 0
    assert none_true["recall"] is None


def test_the_audit_does_not_change_the_pseudo_labels() -> None:
    labels, confident = torch.ones(4, 2, dtype=torch.int8), torch.ones(4, 2, dtype=torch.bool)
    PseudoLabelAudit(np.zeros((4, 2)))(labels, confident, np.arange(4))
    assert labels.all() and confident.all()
