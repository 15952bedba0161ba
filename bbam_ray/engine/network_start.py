"""The network of a run before its first step, and the data that its steps read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch

from bbam_ray import distributed
from bbam_ray.config import RunConfig
from bbam_ray.data.views.images import Views
from bbam_ray.engine.cached_features import feature_views, with_features
from bbam_ray.engine.head_start import start_from_logistic
from bbam_ray.engine.network_of_run import network_of_run
from bbam_ray.engine.optim import Precision
from bbam_ray.engine.task import TrainingData
from bbam_ray.models import Network
from bbam_ray.models.sync_batch_norm import synchronized


@dataclass(frozen=True)
class NetworkStart:
    """What training starts from.

    Args:
        network: on the device, equal on all ranks.
        data: what the steps read: samples, or the features of a frozen backbone.
        views: of these data.
    """

    network: Network
    data: TrainingData
    views: Views


def network_at_start(
    config: RunConfig, data: TrainingData, views: Views, device: torch.device, precision: Precision
) -> NetworkStart:
    """Build the network of a run; its random weights follow from the seed alone.

    Args:
        config: of the run.
        data: everything that training may see.
        views: of these data.
        device: of the network.
        precision: of forward passes.
    """
    common = config.training
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(common.seed)
        network = network_of_run(config, data)
    network.to(device).to(memory_format=torch.channels_last)
    if common.head_init == "logistic":
        start_from_logistic(network, data, views, common.evaluation_batch, device, precision)
    distributed.broadcast_module(network)
    if not common.backbone_rate:
        network.freeze_backbone()
    network.keeps_statistics = common.batch_norm == "pretrained"
    if common.cache_features:
        batch = common.evaluation_batch
        data = with_features(network, data, views, batch, device, precision)
        views = feature_views(config)
    if common.synchronized_batch_norm:
        network = cast(Network, synchronized(network, device))
    return NetworkStart(network, data, views)
