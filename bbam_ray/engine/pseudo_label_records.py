"""Figures about pseudo-labels, for the records only: how many there are, and how many are right."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from bbam_ray import distributed


class PseudoLabelAudit:
    """Precision and recall of confident pseudo-labels against the hidden truth.

    A one-way street: training hands over copies and its figures go into the records only.

    Args:
        truth: (N_u, K) 0/1, in the order of the unlabelled rows.
        is_labeled: (N_u,) bool, False where there is no truth: such samples are not judged.
    """

    def __init__(self, truth: np.ndarray, is_labeled: np.ndarray | None = None) -> None:
        self._truth = torch.from_numpy(np.ascontiguousarray(truth)).bool()
        self._is_labeled = torch.ones(len(truth), dtype=torch.bool)
        if is_labeled is not None:
            self._is_labeled = torch.from_numpy(np.ascontiguousarray(is_labeled))

    def __call__(self, labels: Tensor, confident: Tensor, rows: np.ndarray) -> dict[str, Any]:
        """Precision and recall, over all entries and per label (K,), of confident pseudo-positives.

        Args:
            labels, confident: (N, K) of this rank's unlabelled samples.
            rows: (N,) their positions among all unlabelled samples.
        """
        places = torch.from_numpy(rows)
        claimed = (confident & (labels == 1)).cpu() & self._is_labeled[places].unsqueeze(1)
        truth = self._truth[places]
        counts = torch.stack([(claimed & truth).sum(0), claimed.sum(0), truth.sum(0)]).double()
        (counts,) = distributed.all_reduce_sum(counts.to(labels.device))
        right, made, wanted = counts.cpu()
        return {
            "precision": float(right.sum() / made.sum()) if made.sum() else None,
            "recall": float(right.sum() / wanted.sum()) if wanted.sum() else None,
            "precision_by_label": torch.where(made > 0, right / made, torch.nan),
            "recall_by_label": torch.where(wanted > 0, right / wanted, torch.nan),
        }


def pseudo_label_records(
    pseudo: tuple[Tensor, Tensor], rows: np.ndarray, audit: PseudoLabelAudit | None
) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """Columns of the history and of the label table; all ranks call.

    How many there are is told whatever the truth: they can run dry, or flood everything.

    Args:
        pseudo: labels (N, K) of this rank's unlabelled samples, and which of them are confident.
        rows: (N,) their positions among all unlabelled samples.
        audit: judges them, where there is any truth.
    """
    labels, confident = (tensor.clone() for tensor in pseudo)
    scalars: dict[str, Any] = _shares(labels, confident)
    if audit is None:
        return scalars, {}
    judged = audit(labels, confident, rows)
    scalars |= {f"pseudo_{name}": judged[name] for name in ("precision", "recall")}
    return scalars, {
        f"pseudo_{name}": judged[f"{name}_by_label"].tolist() for name in ("precision", "recall")
    }


def _shares(labels: Tensor, confident: Tensor) -> dict[str, float | None]:
    """Confident positives a sample, and the share of entries that are confident, over all ranks."""
    counts = torch.stack(
        [
            (confident & (labels == 1)).sum(),
            confident.sum(),
            torch.tensor(len(labels)).to(labels.device),
        ]
    )
    (counts,) = distributed.all_reduce_sum(counts.double())
    positives, sure, samples = counts.tolist()
    if not samples:
        return {"pseudo_positives": None, "pseudo_confident": None}
    entries = samples * labels.shape[1]
    return {"pseudo_positives": positives / samples, "pseudo_confident": sure / entries}
