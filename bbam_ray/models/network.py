"""The network: backbone -> projector -> cosine with a learned weight per label.

Source: docs/method.md, section 1.
"""

from __future__ import annotations

import math
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bbam_ray.models.backbones import build_backbone
from bbam_ray.models.fast_paths import FastPath, tensor_float32
from bbam_ray.models.fitted_head import FittedHead
from bbam_ray.models.sync_batch_norm import use_running_statistics


class CosineHead(nn.Module):
    """Cosine between a feature and the weight vector of each label.

    c_k = <f / |f|, w_k / |w_k|>. The weights W (K, D) start uniform in +-sqrt(1/D). Computed in float32
    also under autocast, because arccos magnifies rounding errors near +-1.

    Args:
        feature_dim: D.
        num_labels: K.
    """

    def __init__(self, feature_dim: int, num_labels: int) -> None:
        super().__init__()
        bound = math.sqrt(1 / feature_dim)
        self.weight = nn.Parameter(torch.empty(num_labels, feature_dim).uniform_(-bound, bound))

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B, D) to cosines (B, K) in [-1, 1]."""
        with torch.autocast(features.device.type, enabled=False):
            unit_features = F.normalize(features.float(), dim=1)
            return F.linear(unit_features, F.normalize(self.weight.float(), dim=1))


class Network(nn.Module):
    """Backbone, projector and cosine head.

    Args:
        backbone: maps inputs to (B, width).
        width: of the backbone's output.
        hidden_dim: width of the projector's hidden layer, if it has one.
        feature_dim: D; with projector "none" it is ``width`` instead.
        num_labels: K.
        projector: "mlp" (width -> hidden -> GELU -> D), "linear" (width -> D) or "none".
    """

    def __init__(
        self,
        backbone: nn.Module,
        width: int,
        hidden_dim: int,
        feature_dim: int,
        num_labels: int,
        projector: str = "mlp",
    ) -> None:
        super().__init__()
        self.backbone, self.width = backbone, width
        self.projector: nn.Module
        if projector == "mlp":
            self.projector = nn.Sequential(
                nn.Linear(width, hidden_dim), nn.GELU(), nn.Linear(hidden_dim, feature_dim)
            )
        elif projector == "linear":
            self.projector = nn.Linear(width, feature_dim)
        elif projector == "none":
            self.projector, feature_dim = nn.Identity(), width
        else:
            raise ValueError(f"projector '{projector}' is none of mlp, linear, none")
        self.head: CosineHead | FittedHead = CosineHead(feature_dim, num_labels)
        #: a second network that some learning methods train; not part of ``forward``
        self.auxiliary: nn.Module | None = None
        #: a faster form of ``encode`` for inputs of some shapes
        self.fast_path: FastPath | None = None
        #: the backbone is not trained and stays in evaluation mode
        self.is_frozen = False
        #: batch norm of the backbone uses its running statistics in training, too, and keeps them
        self.keeps_statistics = False
        #: inputs (B, width) are features of the frozen backbone, computed earlier
        self.takes_features = False

    def freeze_backbone(self) -> None:
        """Keep the backbone as it is: no gradients, no dropped branches, no new running statistics."""
        self.is_frozen = True
        self.backbone.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.is_frozen:
            self.backbone.eval()
        elif self.keeps_statistics:
            use_running_statistics(self.backbone)
        return self

    @property
    def feature_dim(self) -> int:
        """D, width of the features between which angles are measured."""
        return int(self.head.weight.shape[1])

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Map inputs to features (B, D), not normalised, and cosines (B, K)."""
        with tensor_float32(inputs.device):
            path = self.fast_path
            if path is not None and path.accepts(self, inputs):
                features = path.features(self, inputs)
            else:
                features = self.encode(inputs)
        return features, self.head(features)

    def encode(self, inputs: Tensor) -> Tensor:
        """Map inputs to features (B, D), not normalised, on the plain path."""
        if not (self.takes_features and inputs.ndim == 2):
            inputs = self.backbone(inputs)
        features: Tensor = self.projector(inputs)
        return features


def build_network(
    backbone: str,
    input_shape: tuple[int, ...],
    num_labels: int,
    *,
    hidden_dim: int,
    feature_dim: int,
    projector: str = "mlp",
    weights: str = "none",
    vocabulary: int = 0,
    architecture: str | None = None,
    drop_path: float = 0.0,
) -> Network:
    """Build a network for samples of one shape; initial weights come from torch's global generator.

    Args:
        backbone: a name of ``BACKBONES``, or ``timm:NAME``.
        input_shape: of one sample: (C, H, W) for images, (F,) for features, (L,) for texts.
        num_labels: K.
        hidden_dim: width of the projector's hidden layer.
        feature_dim: D.
        projector: see ``Network``.
        weights: initial weights of the backbone: "none", a torchvision name or a file; for a transformer
            a folder or a name on the hub; for ``timm:NAME`` see ``weights_file``.
        vocabulary: number of distinct tokens of texts; 0 = not texts.
        architecture: description of a transformer whose weights will be loaded later, from
            ``HubEncoder.architecture``.
        drop_path: share of residual branches of a ``timm:NAME`` that are left out in training.
    """
    module, width = build_backbone(
        backbone, input_shape, weights, vocabulary, architecture, drop_path
    )
    return Network(module, width, hidden_dim, feature_dim, num_labels, projector)
