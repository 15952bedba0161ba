"""Label prototypes: the mean feature of a label's positives (method, section 4.2)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from bbam_ray import distributed
from bbam_ray.core.rows import row_blocks


def label_prototypes(features: Tensor, labels: Tensor, valid: Tensor) -> Tensor:
    """P_k = sum_i y_ik f_i / n_1k over the valid positives of all ranks, (K, D) float32.

    Args:
        features: (N, D), this rank's rows; deliberately not normalised.
        labels: (N, K) 0/1.
        valid: (N, K) bool; False takes part in nothing.

    A label without positives gives a zero row. Sums are float64 and meet in one packed all-reduce
    of K (D + 1) numbers.
    """
    num_labels = labels.shape[1]
    sums = torch.zeros(num_labels, features.shape[1], dtype=torch.float64, device=features.device)
    counts = torch.zeros(num_labels, dtype=torch.float64, device=features.device)
    for rows in row_blocks(features.shape[0], max(num_labels, features.shape[1])):
        positive = (valid[rows] & (labels[rows] == 1)).double()
        sums += positive.T @ features[rows].double()
        counts += positive.sum(0)
    sums, counts = distributed.all_reduce_sum(sums, counts)
    return (sums / counts.clamp_min(1).unsqueeze(1)).float()


class PrototypeCosine:
    """Cosines between features and label prototypes, computed for a block of rows when asked.

    In float64: N x K of them never exist at once, and any split of the rows gives the same figures to
    about 1e-15.

    Args:
        features: (N, D), not normalised; a zero row has the cosine 0.
        prototypes: (K, D), not normalised; a zero row likewise.
    """

    def __init__(self, features: Tensor, prototypes: Tensor) -> None:
        self._features = features
        self._directions = F.normalize(prototypes.double(), dim=1).T.contiguous()
        self._lengths = torch.empty(
            features.shape[0], 1, dtype=torch.float64, device=features.device
        )
        for rows in row_blocks(*features.shape):
            length = torch.linalg.vector_norm(features[rows].double(), dim=1, keepdim=True)
            self._lengths[rows] = length.clamp_min(1e-12)

    def block(self, rows: slice) -> Tensor:
        """(rows, K) float64."""
        features, lengths = self._features[rows], self._lengths[rows]
        cosine = torch.empty(
            features.shape[0],
            self._directions.shape[1],
            dtype=torch.float64,
            device=features.device,
        )
        for part in row_blocks(*features.shape):
            torch.mm(features[part].double(), self._directions, out=cosine[part])
        return cosine.div_(lengths)
