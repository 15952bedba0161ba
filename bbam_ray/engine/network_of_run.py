"""The network of a configuration, in its initial state."""

from __future__ import annotations

from bbam_ray.config import RunConfig
from bbam_ray.engine.task import TrainingData
from bbam_ray.methods import METHODS
from bbam_ray.models import Network, build_network


def network_of_run(config: RunConfig, data: TrainingData) -> Network:
    """Build the network of a run with its method; random weights come from torch's global generator.

    Args:
        config: of the run.
        data: shape of the inputs, label names and vocabulary.
    """
    common = config.training
    network = build_network(
        common.backbone,
        data.input_shape,
        len(data.label_names),
        hidden_dim=common.hidden_dim,
        feature_dim=common.feature_dim,
        projector=common.projector,
        weights=common.weights,
        vocabulary=data.views.vocabulary,
        drop_path=common.drop_path,
    )
    method = METHODS[common.method]
    network.auxiliary = method.auxiliary(config.method, network.feature_dim, len(data.label_names))
    return method.adapted(config.method, network, features=data.views.features(data.input_shape))
