"""Start of training from the solution of a logistic regression instead of a random head."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from bbam_ray.core.logistic import choose_regularization, logistic_weights
from bbam_ray.data.views.images import Views
from bbam_ray.engine.evaluation import evaluation_batches
from bbam_ray.engine.optim import Precision
from bbam_ray.engine.task import TrainingData
from bbam_ray.models import Network


@torch.no_grad()
def start_from_logistic(
    model: Network,
    data: TrainingData,
    views: Views,
    batch: int,
    device: torch.device,
    precision: Precision,
) -> None:
    """Replace the head's weights by those of a logistic regression on the labelled samples.

    The regression sees features of unit length (times sqrt(D)), so that for each label the cosine ranks
    samples exactly as the regression does; a bias does not change the order. Its strength is chosen by
    cross-validation on the labelled samples. The rows are scaled to sqrt(1/3), the length that random
    weights have on average, because the optimiser's steps are relative to it. A label with one class only
    keeps its random weights. Every rank computes the same from all labelled samples: nothing is sent.

    Args:
        model: on the device; only ``head.weight`` changes.
        data: labelled samples and their labels.
        views: how inputs become network inputs; samples are not augmented.
        batch: samples per forward pass.
        precision: of the forward pass.

    Source: [Kumar et al., Fine-Tuning can Distort Pretrained Features and Underperform
    Out-of-Distribution](https://arxiv.org/abs/2202.10054), ICLR 2022.
    """
    weights = logistic_head(_features(model, data, views, batch, device, precision), data.labels)
    learned = weights.norm(dim=1) > 0
    head = model.head.weight
    rows = F.normalize(weights, dim=1) * (1 / 3) ** 0.5
    head.copy_(torch.where(learned.unsqueeze(1), rows.to(head), head))


def logistic_head(features: Tensor, labels: Tensor) -> Tensor:
    """Weights (K, D), float64, of logistic regressions on features of unit length.

    Args:
        features: (N_l, D).
        labels: (N_l, K) 0/1.

    Returns:
        Weights whose cosine with a feature ranks like the regression; 0 for a label with one class only.
    """
    units = F.normalize(features.double(), dim=1) * features.shape[1] ** 0.5
    labels = labels.to(units.device)
    return logistic_weights(units, labels, choose_regularization(units, labels))[0]


def _features(
    model: Network,
    data: TrainingData,
    views: Views,
    batch: int,
    device: torch.device,
    precision: Precision,
) -> Tensor:
    """Features (N_l, D) of all labelled samples by the network in evaluation mode."""
    model.eval()
    features = torch.empty(len(data.labeled), model.feature_dim, device=device)
    with precision.autocast():
        for positions, block in evaluation_batches(data.inputs, data.labeled, batch, views, device):
            features[positions] = model(block)[0].float()
    return features
