"""Diagnostics of pseudo-labels: how many there are, and how many are correct."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from bbam_ray import distributed


class PseudoLabelAudit:
    """Precision and recall of confident pseudo-labels against the hidden labels.

    Training hands over copies, and the result goes into the records only.

    Args:
        labels: (N_u, K) 0/1, ground truth in the order of the unlabelled rows.
        is_labeled: (N_u,) bool, False for samples without ground truth, which are left out; None = all
            samples have labels.
    """

    def __init__(self, labels: np.ndarray, is_labeled: np.ndarray | None = None) -> None:
        self._labels = torch.from_numpy(np.ascontiguousarray(labels)).bool()
        self._is_labeled = torch.ones(len(labels), dtype=torch.bool)
        if is_labeled is not None:
            self._is_labeled = torch.from_numpy(np.ascontiguousarray(is_labeled))

    def __call__(self, labels: Tensor, confident: Tensor, rows: np.ndarray) -> dict[str, Any]:
        """Precision and recall of confident pseudo-positives over all ranks; every rank calls this.

        Args:
            labels: (N, K) 0/1, pseudo-labels of this rank's unlabelled samples.
            confident: (N, K) bool.
            rows: (N,) row indices of the samples among all unlabelled samples.

        Returns:
            ``precision`` and ``recall`` over all entries (None if undefined), ``precision_by_label`` and
            ``recall_by_label`` (K,) (NaN if undefined), in [0, 1].
        """
        index = torch.from_numpy(rows)
        predicted = (confident & (labels == 1)).cpu() & self._is_labeled[index].unsqueeze(1)
        actual = self._labels[index]
        counts = torch.stack([(predicted & actual).sum(0), predicted.sum(0), actual.sum(0)])
        (counts,) = distributed.all_reduce_sum(counts.double().to(labels.device))
        hits, predicted, actual = counts.cpu()
        return {
            "precision": float(hits.sum() / predicted.sum()) if predicted.sum() else None,
            "recall": float(hits.sum() / actual.sum()) if actual.sum() else None,
            "precision_by_label": torch.where(predicted > 0, hits / predicted, torch.nan),
            "recall_by_label": torch.where(actual > 0, hits / actual, torch.nan),
        }


def pseudo_label_records(
    pseudo: tuple[Tensor, Tensor], rows: np.ndarray, audit: PseudoLabelAudit | None
) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """Columns of the history and of the label table; every rank calls this.

    Counts are recorded even without ground truth, because pseudo-labels can vanish or explode.

    Args:
        pseudo: labels (N, K) 0/1 and confident (N, K) bool of this rank's unlabelled samples.
        rows: (N,) row indices of the samples among all unlabelled samples.
        audit: compares with the hidden labels; None if there are none.

    Returns:
        Columns ``pseudo_*`` of the history, and of the label table (K numbers each).
    """
    labels, confident = (tensor.clone() for tensor in pseudo)
    scalars: dict[str, Any] = _shares(labels, confident)
    if audit is None:
        return scalars, {}
    quality = audit(labels, confident, rows)
    scalars |= {f"pseudo_{name}": quality[name] for name in ("precision", "recall")}
    return scalars, {
        f"pseudo_{name}": quality[f"{name}_by_label"].tolist() for name in ("precision", "recall")
    }


def _shares(labels: Tensor, confident: Tensor) -> dict[str, float | None]:
    """Confident positives per sample, and the share of entries that are confident, over all ranks."""
    counts = torch.stack(
        [
            (confident & (labels == 1)).sum(),
            confident.sum(),
            torch.tensor(len(labels)).to(labels.device),
        ]
    )
    (counts,) = distributed.all_reduce_sum(counts.double())
    positives, confident_entries, samples = counts.tolist()
    if not samples:
        return {"pseudo_positives": None, "pseudo_confident": None}
    entries = samples * labels.shape[1]
    return {
        "pseudo_positives": positives / samples,
        "pseudo_confident": confident_entries / entries,
    }
