"""Features of a frozen backbone, computed once instead of in every step."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from bbam_ray.config import RunConfig
from bbam_ray.data import ViewSettings
from bbam_ray.data.views.images import Views
from bbam_ray.engine.evaluation import evaluation_batches
from bbam_ray.engine.optim import Precision
from bbam_ray.engine.task import TrainingData
from bbam_ray.models import Network


@torch.no_grad()
def with_features(
    model: Network,
    data: TrainingData,
    views: Views,
    batch: int,
    device: torch.device,
    precision: Precision,
) -> TrainingData:
    """The same data with the backbone's features of plain images in place of the images.

    Every rank computes all of them, in the same batches, so that they do not depend on the number of
    ranks. They stay in memory: 4 bytes for each feature of each image.

    Args:
        model: with a frozen backbone, on the device; from now on it takes features, too.
        data: of images.
        views: how images become inputs of the backbone; they are not augmented.
        batch: images per forward pass.
        precision: of the forward pass.
    """
    features = np.zeros((len(data.inputs), model.width), dtype=np.float32)
    rows = np.sort(np.concatenate([data.labeled, data.validation, data.unlabeled]))
    model.eval()
    with precision.autocast():
        for positions, block in evaluation_batches(data.inputs, rows, batch, views, device):
            features[rows[positions]] = model.backbone(block).float().cpu().numpy()
    model.takes_features = True
    return replace(data, inputs=features, views=ViewSettings())


def feature_views(config: RunConfig) -> Views:
    """Views of features: noise and dropout in place of changes of images."""
    common = config.training
    return Views(ViewSettings(), common.strong_magnitude, common.cutout)
