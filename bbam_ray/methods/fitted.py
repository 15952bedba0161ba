"""Baselines on frozen features: logistic regression, label propagation, and the sum of both.

They are fitted once instead of trained by gradient steps. The features are those of feature data sets, or
the output of the initial backbone for images and texts. docs/methods.md describes them.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor, nn

from bbam_ray.config import MethodOptions
from bbam_ray.methods.method import Method, Minibatch, StepLoss
from bbam_ray.models.fitted_head import FittedHead
from bbam_ray.models.network import Network


class RegressionOptions(MethodOptions):
    """Options of methods with a logistic regression."""

    regularization: float | None = Field(
        None,
        gt=0,
        le=1e6,
        description="Inverse strength C of the regularisation; null chooses it by cross-validation of "
        "the labelled samples.",
    )


class PropagationOptions(MethodOptions):
    """Options of methods with label propagation over a graph of nearest neighbours."""

    neighbors: int = Field(20, ge=1, le=1000, description="Nearest neighbours of each sample.")
    propagation_alpha: float = Field(
        0.9, ge=0, lt=1, description="Weight of the neighbours in label propagation."
    )


class LogisticPropagationOptions(RegressionOptions, PropagationOptions):
    """Options of the method ``logistic+propagation``."""


class FittedMethod(Method[Any]):
    """A method that is fitted once on frozen features.

    The network has the identity or the initial backbone, no projector, and a ``FittedHead`` whose scores
    stand for the cosines of other methods.
    """

    fixed_settings: ClassVar[dict[str, Any]] = {"epochs": 1, "warmup_epochs": 1}
    unused: ClassVar[tuple[str, ...]] = (
        *("epochs", "warmup_epochs", "warmup_passes", "stop_epoch", "patience", "keep"),
        *("labeled_batch", "unlabeled_batch", "warmup_learning_rate", "learning_rate"),
        *("backbone_rate", "cache_features", "drop_path", "weight_decay", "pct_start", "ema_decay"),
        *("batch_composition", "warmup_batch", "shuffle", "warmup_views", "cycle_epochs"),
        *("cycle_momentum", "ema_warmup", "ema_restart", "strong_magnitude", "cutout"),
        *("hidden_dim", "feature_dim", "projector", "head_init", "synchronized_batch_norm"),
        "batch_norm",
        *("warmup_cutout", "strong_view", "flip_when_scoring"),
    )
    semi_supervised: ClassVar[bool] = False
    regression: ClassVar[bool] = False
    propagation: ClassVar[bool] = False

    @classmethod
    def adapted(cls, options: Any, network: Network, *, features: int | None) -> Network:
        """The network for this method.

        Args:
            options: settings of the method.
            network: that other methods would train.
            features: F, for samples that are feature vectors; None = other samples.
        """
        num_labels, width = network.head.weight.shape[0], network.width
        if features is not None:
            network.backbone, width = nn.Identity(), features
        network.projector = nn.Sequential()
        network.head = FittedHead(width, num_labels, getattr(options, "neighbors", 1))
        return network

    def fit(self, network: Network, features: Tensor, labeled: Tensor, labels: Tensor) -> None:
        """Fit the head of a network.

        Args:
            network: of ``adapted``.
            features: (N, F) of all training samples.
            labeled: (N_l,) positions of the labelled ones.
            labels: (N_l, K) 0/1.
        """
        options = self.options
        assert isinstance(network.head, FittedHead)
        network.head.fit(
            features,
            labeled,
            labels,
            regression=self.regression,
            propagation=self.propagation,
            regularization=getattr(options, "regularization", None),
            alpha=getattr(options, "propagation_alpha", 0.0),
        )

    def labeled_loss(self, model: nn.Module, labeled: Minibatch, labels: Tensor) -> StepLoss:
        raise TypeError(f"method '{self.name}' is fitted, not trained by steps")

    def logits(self, cosine: Tensor) -> Tensor:
        """The scores of the fitted head."""
        return cosine

    def label_records(self) -> dict[str, Tensor]:
        return {"prior": self.task.positive_frequency}


class Logistic(FittedMethod):
    """The method ``logistic``: one L2-regularised logistic regression per label."""

    name: ClassVar[str] = "logistic"
    Options = RegressionOptions
    regression: ClassVar[bool] = True


class Propagation(FittedMethod):
    """The method ``propagation``: labels spread over a graph of nearest neighbours."""

    name: ClassVar[str] = "propagation"
    Options = PropagationOptions
    propagation: ClassVar[bool] = True


class LogisticPropagation(FittedMethod):
    """The method ``logistic+propagation``: the sum of the standardised scores of both."""

    name: ClassVar[str] = "logistic+propagation"
    Options = LogisticPropagationOptions
    regression: ClassVar[bool] = True
    propagation: ClassVar[bool] = True
