"""Label prototypes, and the cosines and angles between them and features."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from bbam_ray import distributed
from bbam_ray.core.rows import row_blocks


def label_prototypes(features: Tensor, labels: Tensor, valid: Tensor) -> Tensor:
    """The prototype of each label: the mean feature of its positives.

    P_k = sum_i y_ik f_i / n_1k, over the valid positives i of all ranks, n_1k in number. A label without
    positives gets a zero row. Sums are float64 and are reduced in one packed all-reduce of K (D + 1)
    numbers.

    Args:
        features: (N, D), this rank's rows f_i; deliberately not normalised.
        labels: (N, K) 0/1, y_ik.
        valid: (N, K) bool; an entry that is False is ignored.

    Returns:
        (K, D) float32.

    Source: [S2ML2-BBAM](https://openreview.net/forum?id=AqcPvWwktK); docs/method.md, section 4.2.

    Examples:
        >>> features = torch.tensor([[1.0, 0.0], [3.0, 2.0], [9.0, 9.0]])
        >>> labels = torch.tensor([[1, 0], [1, 0], [0, 0]])
        >>> label_prototypes(features, labels, torch.ones(3, 2, dtype=torch.bool))
        tensor([[2., 1.],
                [0., 0.]])
    """
    num_labels = labels.shape[1]
    sums = torch.zeros(num_labels, features.shape[1], dtype=torch.float64, device=features.device)
    counts = torch.zeros(num_labels, dtype=torch.float64, device=features.device)
    for rows in row_blocks(
        features.shape[0], max(num_labels, features.shape[1]), device=features.device
    ):
        positive = (valid[rows] & (labels[rows] == 1)).double()
        sums += positive.T @ features[rows].double()
        counts += positive.sum(0)
    sums, counts = distributed.all_reduce_sum(sums, counts)
    return (sums / counts.clamp_min(1).unsqueeze(1)).float()


class PrototypeCosine:
    """Cosines between features and label prototypes, computed block by block on request.

    c_ik = <f_i, P_k> / (|f_i| |P_k|) in float64. The (N, K) matrix never exists at once, and any division
    of the rows gives the same values to about 1e-15.

    Args:
        features: (N, D), not normalised; a zero row has the cosine 0.
        prototypes: (K, D), not normalised; a zero row has the cosine 0.
    """

    def __init__(self, features: Tensor, prototypes: Tensor) -> None:
        self._features = features
        self._directions = F.normalize(prototypes.double(), dim=1).T.contiguous()
        self._lengths = torch.empty(
            features.shape[0], 1, dtype=torch.float64, device=features.device
        )
        for rows in row_blocks(*features.shape, device=features.device):
            length = torch.linalg.vector_norm(features[rows].double(), dim=1, keepdim=True)
            self._lengths[rows] = length.clamp_min(1e-12)

    def block(self, rows: slice) -> Tensor:
        """Cosines (rows, K) float64 of a slice of rows."""
        features, lengths = self._features[rows], self._lengths[rows]
        cosine = torch.empty(
            features.shape[0],
            self._directions.shape[1],
            dtype=torch.float64,
            device=features.device,
        )
        for part in row_blocks(*features.shape, device=features.device):
            torch.mm(features[part].double(), self._directions, out=cosine[part])
        return cosine.div_(lengths)


def prototype_angles(features: Tensor, prototypes: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Angles between features and label prototypes as differences from pi/2, block by block.

    theta_ik - pi/2 with theta_ik = arccos(c_ik), c of ``PrototypeCosine``. Subtracting the right angle
    keeps the numbers small, so that sums of squares lose less to cancellation.

    Args:
        features: (N, D), this rank's rows; not normalised.
        prototypes: (K, D), not normalised; a zero row gives the angle pi/2.

    Yields:
        A slice of rows, and (rows, K) float64 in [-pi/2, pi/2], radians.
    """
    cosine = PrototypeCosine(features, prototypes)
    width = max(prototypes.shape[0], features.shape[1])
    for rows in row_blocks(features.shape[0], width, device=features.device):
        yield rows, cosine.block(rows).clamp_(-1, 1).arccos_().sub_(math.pi / 2)
