"""The head of methods that are fitted on frozen features instead of trained by gradient steps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bbam_ray import distributed
from bbam_ray.core.graph import neighbor_graph, propagate_scores
from bbam_ray.core.logistic import choose_regularization, logistic_weights

_LARGEST_BIAS = 30.0  # log-odds of a label that all labelled samples have
_PRIOR_WEIGHT = 0.01  # of the label frequencies, relative to the mean weight that reaches a sample
_BLOCK_ROWS = 512


class FittedHead(nn.Module):
    """Logistic regression, label propagation or the sum of both, on standardised features.

    The buffers are empty until ``fit``; loading a state dict gives them their sizes.

    Args:
        width: F, of the features.
        num_labels: K.
        neighbors: of a sample in the graph.
    """

    def __init__(self, width: int, num_labels: int, neighbors: int = 1) -> None:
        super().__init__()
        self._shape, self._neighbors = (width, num_labels), neighbors
        for name, shape in (
            ("mean", (width,)),
            ("std", (width,)),
            ("weight", (num_labels, 0)),  # of the regression; (K, F) if it is used
            ("bias", (num_labels,)),
            ("rows", (0, width)),  # of the graph, of length 1; (N, F) if it is used
            ("values", (0, num_labels)),  # their propagated labels
            ("score_mean", (2, num_labels)),  # of regression and graph, over all training rows
            ("score_std", (2, num_labels)),
        ):
            self.register_buffer(name, torch.zeros(shape))
        self.mean: Tensor
        self.std: Tensor
        self.weight: Tensor
        self.bias: Tensor
        self.rows: Tensor
        self.values: Tensor
        self.score_mean: Tensor
        self.score_std: Tensor

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *args: Any) -> None:
        for name in ("weight", "rows", "values"):
            stored = state.get(prefix + name)
            if stored is not None and self._fits(name, stored):
                setattr(self, name, torch.zeros_like(stored, device=self.mean.device))
        super()._load_from_state_dict(state, prefix, *args)

    def _fits(self, name: str, stored: Tensor) -> bool:
        """Whether a stored buffer of variable size belongs to this number of features and labels."""
        width, num_labels = self._shape
        if stored.ndim != 2:
            return False
        if name == "weight":
            return stored.shape in ((num_labels, 0), (num_labels, width))
        return stored.shape[1] == (width if name == "rows" else num_labels)

    def fit(
        self,
        features: Tensor,
        labeled: Tensor,
        labels: Tensor,
        *,
        regression: bool,
        propagation: bool,
        regularization: float | None,
        alpha: float,
    ) -> None:
        """Fit on all training samples; only labels of the labelled ones are used.

        All ranks call this together, each with all samples, and fit the same head.

        Args:
            features: (N, F) of all training samples.
            labeled: (N_l,) positions of the labelled ones.
            labels: (N_l, K) 0/1.
            regression: use logistic regression.
            propagation: use label propagation.
            regularization: C of the regression; None = chosen by cross-validation.
            alpha: weight of the neighbours in the propagation.
        """
        x = features.double()
        self.mean.copy_(x.mean(0))
        deviation = x.std(0, correction=0)
        self.std.copy_(torch.where(deviation > 1e-12, deviation, 1.0))
        x = self._standardized(features)
        if regression:
            known = x[labeled]
            strength = regularization or choose_regularization(known, labels)
            weight, bias = logistic_weights(known, labels, strength)
            self.weight = weight.float()
            self.bias.copy_(bias.clamp(-_LARGEST_BIAS, _LARGEST_BIAS))
        if propagation:
            # Every rank has all samples and divides the graph with the others.
            own = torch.arange(len(x), device=x.device)[
                distributed.rank() :: distributed.world_size()
            ]
            graph = neighbor_graph(x[own], self._neighbors, own)
            # The share of positives among all labels that reach a sample.
            known = labels.double()
            start = known.new_zeros(len(x), labels.shape[1] + 1)
            start[labeled] = torch.cat([known, known.new_ones(len(known), 1)], dim=1)
            reached = graph.gather(propagate_scores(graph, start[own], alpha))
            positives, everything = reached[:, :-1], reached[:, -1:]
            extra = _PRIOR_WEIGHT * everything.mean()
            shares = (positives + extra * known.mean(0)) / (everything + extra)
            self.rows, self.values = F.normalize(x, dim=1), shares.float()
        for part, scores_of in enumerate((self._regression, self._graph)):
            if (regression, propagation)[part]:
                scores = torch.cat([scores_of(block) for block in x.split(_BLOCK_ROWS)]).double()
                spread = scores.std(0, correction=0)
                self.score_mean[part] = scores.mean(0)
                self.score_std[part] = torch.where(spread > 1e-12, spread, 1.0)

    def _standardized(self, features: Tensor) -> Tensor:
        return (features.float() - self.mean) / self.std

    def _regression(self, x: Tensor) -> Tensor:
        """Log-odds (B, K) of standardised features (B, F)."""
        return F.linear(x, self.weight, self.bias)

    def _graph(self, x: Tensor) -> Tensor:
        """Means (B, K) of the values of the nearest rows, weighted with cosine^3."""
        cosine = F.normalize(x, dim=1) @ self.rows.T
        nearest, index = cosine.topk(min(self._neighbors, self.rows.shape[0]), dim=1)
        share = nearest.clamp_min(0).pow(3)
        total = share.sum(1, keepdim=True).clamp_min(1e-12)
        return (self.values[index] * (share / total).unsqueeze(2)).sum(1)

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B, F) to scores (B, K); zeros before ``fit``."""
        x = self._standardized(features)
        if not self.rows.shape[0]:
            is_fitted = self.weight.shape[1] > 0
            return self._regression(x) if is_fitted else x.new_zeros(len(x), self._shape[1])
        graph = (self._graph(x) - self.score_mean[1]) / self.score_std[1]
        if not self.weight.shape[1]:
            return graph
        return (self._regression(x) - self.score_mean[0]) / self.score_std[0] + graph
