"""The module that scores stored samples, and its construction from the files of a model."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bbam_ray.core.ensembles import Standardization
from bbam_ray.data import ViewSettings
from bbam_ray.engine.evaluation import channels_last
from bbam_ray.engine.model_description import WEIGHTS, ModelDescription
from bbam_ray.engine.model_folder import read_weights
from bbam_ray.errors import UsageError
from bbam_ray.methods import METHODS
from bbam_ray.methods.fitted import FittedMethod
from bbam_ray.methods.method import Method, TaskInfo
from bbam_ray.models import Network, build_network


class ScoringModule(nn.Module):
    """The module that is exported: stored samples to logits at y = 1/2 (docs/method.md, section 2).

    Args:
        network: in evaluation mode.
        method: maps cosines to logits.
        views: normalisation of the inputs.
        images: whether samples are images with values 0 to 255.
    """

    def __init__(
        self, network: Network, method: Method[Any], views: ViewSettings, *, images: bool
    ) -> None:
        super().__init__()
        self.network, self._method, self._images = network, method, images
        self._texts = views.vocabulary > 0
        shape = (1, -1, 1, 1) if images else (1, -1)
        self.input_mean: Tensor
        self.input_std: Tensor
        self.register_buffer("input_mean", torch.tensor(views.mean).view(shape))
        self.register_buffer("input_std", torch.tensor(views.std).view(shape))

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (B, C, H, W) with values 0 to 255, (B, F) features or (B, L) tokens to (B, K) logits."""
        if self._texts:
            _, cosine = self.network(inputs)
            return self._method.logits(cosine.float())
        scaled = inputs.float()
        if self._images:
            scaled = scaled / 255
        _, cosine = self.network(channels_last((scaled - self.input_mean) / self.input_std))
        return self._method.logits(cosine.float())


class EnsembleModule(nn.Module):
    """Stored samples to z = sum_m w_m (z_m - mean_m) / std_m over the members' logits z_m.

    Args:
        members: M modules for the same samples and the same K labels.
        weights: (M,).
        standardizations: (K,) means and standard deviations of each member's logits.
    """

    def __init__(
        self,
        members: Sequence[ScoringModule],
        weights: Sequence[float],
        standardizations: Sequence[Standardization],
    ) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        factors = [w / s.std for w, s in zip(weights, standardizations, strict=True)]
        # Not named "mean": the exporter to ONNX gives that name to results of torch.mean.
        self.logit_mean: Tensor
        self.logit_factor: Tensor
        self.register_buffer("logit_mean", torch.stack([s.mean for s in standardizations]).float())
        self.register_buffer("logit_factor", torch.stack(factors).float())

    def forward(self, inputs: Tensor) -> Tensor:
        """Map a batch of stored samples, see ``ScoringModule``, to (B, K) logits."""
        logits = torch.stack([member(inputs) for member in self.members], dim=1)
        return ((logits - self.logit_mean) * self.logit_factor).sum(1)


def build_scoring_module(
    folder: Path, description: ModelDescription, device: torch.device
) -> ScoringModule:
    """Network and method with the stored weights of one model, in evaluation mode.

    Raises:
        UsageError: weights that are damaged, not finite or of another model.
    """
    common, labels = description.config.training, len(description.label_names)
    weights, scoring = read_weights(folder)
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise UsageError(
                f"{folder / WEIGHTS}: {name} holds numbers that are not finite; train again or use "
                "another checkpoint"
            )
    head = weights.get("head.weight")
    if head is not None and len(head) != labels:
        raise UsageError(
            f"{folder}: the weights are for {len(head)} labels, labels.json names {labels}; these files "
            "are from different models"
        )
    # Check sizes first: a wrong size in config.json would allocate a network of that size.
    sides = {side for tensor in weights.values() for side in tensor.shape}
    sizes: dict[str, int] = {}
    if common.projector == "mlp":
        sizes["hidden_dim"] = common.hidden_dim
    if common.projector != "none":
        sizes["feature_dim"] = common.feature_dim
    if description.views.vocabulary:
        if common.backbone != "transformer":  # its table of tokens may be larger
            sizes["input_vocabulary"] = description.views.vocabulary
    elif common.backbone in ("mlp", "identity"):
        sizes["input_shape"] = description.input_shape[0]
    for entry, size in sizes.items():
        if size not in sides and not issubclass(METHODS[common.method], FittedMethod):
            raise UsageError(
                f"{folder / WEIGHTS}: does not fit config.json ({entry} = {size}); these files are from "
                "different models"
            )
    with torch.random.fork_rng(devices=[]):
        network = build_network(
            common.backbone,
            description.input_shape,
            labels,
            hidden_dim=common.hidden_dim,
            feature_dim=common.feature_dim,
            projector=common.projector,
            vocabulary=description.views.vocabulary,
            architecture=description.architecture,
        )
        network.auxiliary = METHODS[common.method].auxiliary(
            description.config.method, network.feature_dim, labels
        )
        features = description.views.features(description.input_shape)
        network = METHODS[common.method].adapted(
            description.config.method, network, features=features
        )
    task = TaskInfo(
        num_labels=labels,
        labels=torch.zeros(0, labels, dtype=torch.int8, device=device),
        positive_frequency=torch.zeros(labels, dtype=torch.float64, device=device),
        labeled_batch=common.labeled_batch,
        unlabeled_batch=common.unlabeled_batch,
    )
    method = METHODS[common.method](description.config.method, task)
    try:
        network.load_state_dict(weights)
        method.load_scoring_state(scoring)
    except (RuntimeError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        made_by = description.timm_version
        with_timm = f"; saved with timm {made_by}, here is {version('timm')}" if made_by else ""
        raise UsageError(
            f"{folder / WEIGHTS}: does not fit config.json ({reason}); these files are from different "
            f"models{with_timm}"
        ) from None
    network.to(device).to(memory_format=torch.channels_last).eval()
    images = len(description.input_shape) > 1
    return ScoringModule(network, method, description.views, images=images).to(device).eval()
