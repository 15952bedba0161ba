"""Label propagation over a graph of nearest neighbours, exact and in blocks."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from bbam_ray import distributed
from bbam_ray.core.selection import ordered_keys

_BLOCK_ROWS = (
    256  # rows of a similarity block; fixed, so that a row's numbers do not depend on the ranks
)
_POWER = 3  # similarities to this power are the weights of the edges
_STEPS = 50


@dataclass(frozen=True)
class NeighborGraph:
    """The rows of all ranks in the order of their index, and the graph between them.

    Args:
        weights: (N, N) sparse, symmetric, normalised: D^-1/2 W D^-1/2.
        own: (n,) positions of this rank's rows.
        order: (N,) int64, gathered rows (in rank order) sorted by index.
    """

    weights: Tensor
    own: Tensor
    order: Tensor

    def gather(self, rows: Tensor) -> Tensor:
        """Rows (n, ...) of this rank to those of all ranks (N, ...), in the order of the graph."""
        (everything,) = distributed.gather_rows(rows)
        return everything[self.order]


def neighbor_graph(features: Tensor, neighbors: int, index: Tensor | None = None) -> NeighborGraph:
    """The graph in which every sample is joined to its nearest neighbours by cosine, over all ranks.

    W_ij = max(cos_ij, 0)^3 if j is among the nearest neighbours of i, else 0; then W <- (W + W^T) / 2 and
    S = D^-1/2 W D^-1/2 with the row sums D. Neighbours are exact: each rank compares a share of the rows
    with all of them, 256 at a time, so that it holds 256 x N similarities and no N x N matrix. The time is
    N^2 D / ranks. Traffic per rank: the features of all samples (N D float32) once, and N x neighbours
    edges of 20 bytes.

    Args:
        features: (n, D) of this rank's samples; a sample of length 0 has no neighbours.
        neighbors: of each sample, >= 1, without itself; limited to N - 1.
        index: (n,) int64 sample indices, unique over all ranks; equal similarities go to the lower one.
            Default: the rank-ordered position.

    Source: [Iscen et al., Label Propagation for Deep Semi-supervised
    Learning](https://arxiv.org/abs/1904.04717), CVPR 2019, section 3.
    """
    if index is None:
        index = distributed.global_index(len(features), features.device)
    everything, indices = distributed.gather_rows(F.normalize(features.float(), dim=1), index)
    order = indices.argsort()
    units, total = everything[order], len(order)
    position = torch.empty_like(order)
    position[order] = torch.arange(total, device=order.device)
    start = sum(distributed.row_counts(len(features), features.device)[: distributed.rank()])
    own = position[start : start + len(features)]
    count = min(neighbors, total - 1)
    blocks = range(0, total, _BLOCK_ROWS)
    own_blocks = [
        b for n, b in enumerate(blocks) if n % distributed.world_size() == distributed.rank()
    ]
    edge_rows, edge_columns, edge_weights = [], [], []
    lowest_first = (2**32 - 1) - torch.arange(total, device=units.device)
    for first in own_blocks:
        rows = torch.arange(first, min(first + _BLOCK_ROWS, total), device=units.device)
        cosine = units[rows] @ units.T
        # Unique 64-bit keys: the similarity, then the lower position.
        keys = (ordered_keys(cosine).long() << 32) | lowest_first
        keys[torch.arange(len(rows)), rows] = torch.iinfo(torch.int64).min
        columns = keys.topk(count, dim=1).indices
        edge_rows.append(rows.repeat_interleave(count))
        edge_columns.append(columns.flatten())
        edge_weights.append(cosine.gather(1, columns).clamp_min(0).pow(_POWER).flatten())
    empty = torch.empty(0, dtype=torch.int64, device=units.device)
    sources, targets, values = distributed.gather_rows(
        torch.cat([empty, *edge_rows]),
        torch.cat([empty, *edge_columns]),
        torch.cat([empty.float(), *edge_weights]),
    )
    pairs = torch.cat([torch.stack([sources, targets]), torch.stack([targets, sources])], dim=1)
    weights = torch.cat([values, values]).double() / 2
    # Sorted edges, so that sums do not depend on which rank sent them.
    by_position = (pairs[0] * total + pairs[1]).argsort(stable=True)
    pairs, weights = pairs[:, by_position], weights[by_position]
    degree = weights.new_zeros(total).index_add_(0, pairs[0], weights)
    scale = torch.where(degree > 0, degree.rsqrt(), 0.0)
    weights = weights * scale[pairs[0]] * scale[pairs[1]]
    matrix = torch.sparse_coo_tensor(pairs, weights, (total, total), check_invariants=False)
    return NeighborGraph(matrix.coalesce(), own, order)


def propagate_labels(graph: NeighborGraph, labels: Tensor, alpha: float) -> Tensor:
    """Label propagation, F = (1 - alpha) (I - alpha S)^-1 Y, by 50 iterations of
    F <- alpha S F + (1 - alpha) Y.

    Y holds the labels of labelled samples minus their mean, so that both classes count, and 0 for
    unlabelled samples. Each rank gathers Y (N x K int8, once) and iterates over all samples in float64, so
    that no further message is needed.

    Args:
        graph: of all samples, labelled ones first on each rank.
        labels: (n_l, K) 0/1, of this rank's labelled samples.
        alpha: weight of the neighbours, in [0, 1).

    Returns:
        (n - n_l, K) float64, of this rank's unlabelled samples.

    Source: [Zhou et al., Learning with Local and Global Consistency, NeurIPS
    2003](https://papers.nips.cc/paper/2506-learning-with-local-and-global-consistency).
    """
    unknown = labels.new_full((len(graph.own) - len(labels), labels.shape[1]), -1, dtype=torch.int8)
    everything = graph.gather(torch.cat([labels.to(torch.int8), unknown]))
    known = everything[:, :1] >= 0
    start = everything.double() * known
    start = torch.where(known, start - start.sum(0) / known.sum().clamp_min(1), 0.0)
    return _propagated(graph, start, alpha)[graph.own][len(labels) :]


def propagate_scores(graph: NeighborGraph, scores: Tensor, alpha: float) -> Tensor:
    """Propagation of any start values, (1 - alpha) (I - alpha S)^-1 scores; see ``propagate_labels``.

    Args:
        graph: of all samples.
        scores: (n, K) of this rank's samples.
        alpha: weight of the neighbours, in [0, 1).

    Returns:
        (n, K) float64.
    """
    return _propagated(graph, graph.gather(scores.double()), alpha)[graph.own]


def _propagated(graph: NeighborGraph, start: Tensor, alpha: float) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        weights = (
            graph.weights.to_sparse_csr()
        )  # same sums as COO, with few labels 10 times as fast
    smooth = start
    for _ in range(_STEPS):
        smooth = alpha * (weights @ smooth) + (1 - alpha) * start
    return smooth


def standardized(scores: Tensor) -> Tensor:
    """Scores with mean 0 and deviation 1 for each label, over all ranks; a constant column becomes 0.

    Two messages of K float64 numbers.

    Args:
        scores: (n, K) of this rank's samples.

    Returns:
        (n, K) float64.
    """
    scores = scores.double()
    count = torch.tensor(len(scores), dtype=torch.float64, device=scores.device)
    count, total = distributed.all_reduce_sum(count, scores.sum(0))
    centred = scores - total / count.clamp_min(1)
    (squares,) = distributed.all_reduce_sum(centred.square().sum(0))
    deviation = (squares / count.clamp_min(1)).sqrt()
    return torch.where(deviation > 1e-12, centred / deviation.clamp_min(1e-12), 0.0)
