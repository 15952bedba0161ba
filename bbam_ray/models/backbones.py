"""Backbones by name, and where their initial weights come from."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor, nn

from bbam_ray.errors import UsageError, nearest
from bbam_ray.models.text_encoders import (
    TEXT_BACKBONES,
    TinyText,
    check_length,
    encoder_of,
    pretrained_encoder,
)
from bbam_ray.models.timm_backbones import build_timm, check_timm
from bbam_ray.models.weight_files import state_of_file, where_to_fetch
from bbam_ray.pretrained_images import PREFIX, is_timm

RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101")
_IMAGE_BACKBONES = ("small-cnn", *RESNETS)


class SmoothMaximum(nn.Module):
    """Smooth maximum over the spatial positions: log mean exp of (B, C, H, W).

    It is close to the mean if all values are similar, and to the maximum if one of them is much larger.
    """

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C)."""
        positions = inputs.shape[2] * inputs.shape[3]
        return torch.logsumexp(inputs.flatten(2), dim=2) - math.log(positions)


def _small_cnn(input_shape: tuple[int, ...]) -> tuple[nn.Module, int]:
    """Four convolution blocks for small images (digits), without pretrained weights; 64 features.

    All operations are smooth (GELU, average pooling, a smooth maximum). With ReLU or maximum pooling, a
    rounding error of 1e-7 sooner or later changes a branch, and two runs diverge within a hundred steps.
    """

    def block(inputs: int, outputs: int, pool: bool) -> list[nn.Module]:
        convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        layers = [convolution, nn.BatchNorm2d(outputs), nn.GELU()]
        return [*layers, nn.AvgPool2d(2)] if pool else layers

    channels = input_shape[0]
    layers = [*block(channels, 16, True), *block(16, 32, True), *block(32, 48, False)]
    return nn.Sequential(*layers, *block(48, 64, False), SmoothMaximum()), 64


def _mlp(input_shape: tuple[int, ...]) -> tuple[nn.Module, int]:
    """Two layers for feature vectors; layer norm, which also works for a batch of one; 512 features."""
    (width,) = input_shape
    return nn.Sequential(
        nn.LayerNorm(width), nn.Linear(width, 512), nn.GELU(), nn.LayerNorm(512)
    ), 512


def _identity(input_shape: tuple[int, ...]) -> tuple[nn.Module, int]:
    """Feature vectors as they are, so that all weights are in projector and head."""
    (width,) = input_shape
    return nn.Identity(), width


BACKBONES: dict[str, Callable[[tuple[int, ...]], tuple[nn.Module, int]] | None] = {
    "small-cnn": _small_cnn,
    "mlp": _mlp,
    "identity": _identity,
    **dict.fromkeys(RESNETS),
    **dict.fromkeys(TEXT_BACKBONES),
}


def check_backbone(
    backbone: str,
    weights: str,
    input_shape: tuple[int, ...],
    vocabulary: int = 0,
    drop_path: float = 0.0,
) -> None:
    """Raise a UsageError unless the backbone exists, fits the samples and its weights are available.

    Named torchvision weights are downloaded here, once, so that workers find them in the cache.

    Args:
        backbone: a name of ``BACKBONES``, or ``timm:NAME``.
        weights: see ``build_network``.
        input_shape: of one sample.
        vocabulary: number of distinct tokens of texts; 0 = not texts.
        drop_path: see ``build_network``.
    """
    if backbone not in BACKBONES and not is_timm(backbone):
        known = [*BACKBONES, f"{PREFIX}NAME"]
        raise UsageError(f"unknown backbone '{backbone}'; {nearest(backbone, known)}")
    kind, fitting = _fitting(input_shape, vocabulary)
    if is_timm(backbone) and kind == "images":
        check_timm(backbone, weights, input_shape, drop_path)
        return
    if backbone not in fitting:
        other = " or ".join(fitting[:2]) if fitting[0] != "small-cnn" else "small-cnn or a ResNet"
        raise UsageError(f"backbone '{backbone}' does not take {kind}; use --set backbone={other}")
    if drop_path:
        raise UsageError(
            f"drop_path = {drop_path:g}: only backbones named {PREFIX}NAME drop residual branches, and "
            f"'{backbone}' is another one; use --set drop_path=0"
        )
    if backbone in RESNETS and input_shape[0] != 3:
        raise UsageError(
            f"backbone '{backbone}' takes images with 3 channels, not {input_shape[0]}; "
            "use --set backbone=small-cnn"
        )
    if backbone == "transformer":
        if weights == "none":
            raise UsageError(
                "backbone 'transformer' needs weights; use --set weights=FOLDER or a name on the hub "
                "such as bert-base-uncased, or --set backbone=tiny-text"
            )
        check_length(weights, input_shape[0])
        pretrained_encoder(weights)
        return
    if weights == "none":
        return
    if backbone not in RESNETS:
        raise UsageError(
            f"weights = '{weights}': backbone '{backbone}' has no pretrained weights; "
            "use --set weights=none"
        )
    _load_resnet_state(backbone, weights)


def has_batch_norm(backbone: str, input_shape: tuple[int, ...], vocabulary: int = 0) -> bool:
    """Whether a backbone has batch norm; arguments are those of ``check_backbone``.

    It builds the backbone with random weights, but not an encoder of texts: those have layer norm.
    """
    if vocabulary:
        return False
    with torch.random.fork_rng(devices=[]):
        built, _ = build_backbone(backbone, input_shape, "none")
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in built.modules())


def _fitting(input_shape: tuple[int, ...], vocabulary: int) -> tuple[str, tuple[str, ...]]:
    """The kind of samples of a shape, and the backbones that accept them."""
    if vocabulary:
        return "texts", TEXT_BACKBONES
    return (
        ("feature vectors", ("mlp", "identity"))
        if len(input_shape) == 1
        else ("images", _IMAGE_BACKBONES)
    )


def _resnet(name: str) -> Any:
    """The network of torchvision, which is imported late because that takes seconds in every worker."""
    from torchvision import models as torchvision_models

    return getattr(torchvision_models, name)(weights=None)


def _load_resnet_state(backbone: str, weights: str) -> dict[str, Tensor]:
    path = Path(weights).expanduser()
    if path.is_file():
        state = state_of_file(path)
        reference = _resnet(backbone).state_dict()
        for name, tensor in reference.items():
            if not name.startswith("fc.") and (
                name not in state or state[name].shape != tensor.shape
            ):
                raise UsageError(
                    f"weights = '{weights}': has no tensor '{name}' that fits {backbone}"
                )
        return {name: state[name] for name in reference if not name.startswith("fc.")}
    from torchvision import models as torchvision_models

    known = torchvision_models.get_model_weights(backbone)
    if weights not in known.__members__:
        raise UsageError(
            f"weights = '{weights}': neither a file nor a torchvision name for {backbone}; "
            f"{nearest(weights, known.__members__)}"
        )
    try:
        state = known[weights].get_state_dict(progress=False, check_hash=True)
    except (URLError, OSError) as error:
        raise UsageError(
            f"weights = '{weights}': not in the local cache, and the download failed ({error}); "
            f"{where_to_fetch(known[weights])}"
        ) from None
    return {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}


def build_backbone(
    backbone: str,
    input_shape: tuple[int, ...],
    weights: str,
    vocabulary: int = 0,
    architecture: str | None = None,
    drop_path: float = 0.0,
) -> tuple[nn.Module, int]:
    """Build a backbone; arguments are those of ``build_network``.

    Returns:
        A module that maps (B, *input_shape) to (B, width), and the width.
    """
    if is_timm(backbone):
        images = build_timm(backbone, weights, input_shape, drop_path)
        return images, images.width
    if backbone == "tiny-text":
        text = TinyText(vocabulary, input_shape[0])
        return text, text.width
    if backbone == "transformer":
        encoder = encoder_of(architecture) if architecture else pretrained_encoder(weights)
        return encoder, encoder.width
    builder = BACKBONES[backbone]
    if builder is not None:
        return builder(input_shape)
    module = _resnet(backbone)
    width = int(module.fc.in_features)
    if weights != "none":
        module.load_state_dict(_load_resnet_state(backbone, weights), strict=False)
    module.fc = nn.Identity()
    return module, width
