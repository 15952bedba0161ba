"""A plain semi-supervised epoch: a data set class with two views, and loops over it.

One pass over the unlabelled images gives scores for the pseudo-labels, a second one over all images gives
features, a third one trains. The refresh sorts columns and gathers matrices, the weights are averaged one
by one, and the loss is read after every step.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import torch
from torch import Tensor, nn

from bbam_ray.core.losses import bbam_loss
from bbam_ray.core.statistics import AngleStatistics
from benchmarks.plain_refresh import plain_refresh

Batches = Iterable[tuple[Tensor, Tensor, Tensor]]


@dataclass(frozen=True)
class PlainLoaders:
    """Batches of (weak views, strong views, rows): in order for the refresh, shuffled for training."""

    labeled_in_order: Batches
    unlabeled_in_order: Batches
    labeled: Batches
    unlabeled: Batches


class PlainEpoch:
    """Network, weight average and AdamW, for one or more epochs.

    Args:
        model: maps inputs to (features, cosines).
        known: (N_l, K) labels of the labelled images.
        loaders: of the images.
    """

    def __init__(self, model: nn.Module, known: Tensor, loaders: PlainLoaders) -> None:
        self.model, self.known, self.loaders = model, known, loaders
        self.average = copy.deepcopy(model).eval()
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, weight_decay=1e-4)
        self.scale, self.margin, self.decay = 20.0, 0.4, 0.9997
        self.statistics = AngleStatistics.empty(known.shape[1])
        self.losses: list[float] = []

    @torch.no_grad()
    def _outputs(self, model: nn.Module, batches: Batches, index: int) -> Tensor:
        model.eval()
        return torch.cat([model(weak)[index] for weak, _, _ in batches])

    def run(self) -> int:
        """Refresh and train; returns the number of steps."""
        scores = self._outputs(self.average, self.loaders.unlabeled_in_order, 1)
        features = torch.cat(
            [
                self._outputs(self.model, self.loaders.labeled_in_order, 0),
                self._outputs(self.model, self.loaders.unlabeled_in_order, 0),
            ]
        )
        refreshed = plain_refresh(self.scale * scores, features, self.known)
        self.statistics = AngleStatistics(refreshed.means, refreshed.variances)
        count = len(self.known)
        of_labeled, of_unlabeled = refreshed.selected[:count], refreshed.selected[count:]
        steps = 0
        for labeled, unlabeled in zip(
            cycle(self.loaders.labeled), self.loaders.unlabeled, strict=False
        ):
            self._step(labeled, unlabeled, of_labeled, of_unlabeled, refreshed.pseudo)
            steps += 1
        return steps

    def _step(
        self, labeled: Any, unlabeled: Any, of_labeled: Tensor, of_unlabeled: Tensor, pseudo: Tensor
    ) -> None:
        (_, known_views, rows), (_, views, others) = labeled, unlabeled
        self.model.train()
        _, cosine = self.model(torch.cat([known_views, views]))
        labels = torch.cat([self.known[rows], pseudo[others]])
        selected = torch.cat([of_labeled[rows], of_unlabeled[others]])
        loss = bbam_loss(cosine, labels, self.statistics, self.scale, self.margin)
        total = loss[selected].sum() / len(rows)
        self.optimizer.zero_grad()
        total.backward()
        self.optimizer.step()
        with torch.no_grad():
            pairs = zip(
                self.average.state_dict().values(), self.model.state_dict().values(), strict=True
            )
            for average, current in pairs:
                if average.is_floating_point():
                    average.mul_(self.decay).add_(current, alpha=1 - self.decay)
                else:
                    average.copy_(current)
        self.losses.append(total.item())
