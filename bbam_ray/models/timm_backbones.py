"""Backbones of the package timm: image networks without their classifier, with or without weights."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bbam_ray.errors import UsageError
from bbam_ray.models.weight_files import state_of_file
from bbam_ray.pretrained_images import (
    PREFIX,
    timm_configuration,
    timm_library,
    weights_file,
)

MAX_SIDE = 1024  # pixels; also the limit of the stored images
_CONTAINERS = ("model", "state_dict")  # of the tensors, in files written by training programs


class TimmBackbone(nn.Module):
    """An image network of timm: (B, 3, S, S) to its pooled features (B, width).

    Args:
        network: built without a classifier.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        self.width = int(network.head_hidden_size)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.network(images)
        return features


def build_timm(
    backbone: str, weights: str, input_shape: tuple[int, ...], drop_path: float = 0.0
) -> TimmBackbone:
    """Build a network for images of one size; nothing is downloaded.

    A network for images of a fixed size is built for the size of the inputs, and its position embedding is
    interpolated.

    Args:
        backbone: ``timm:NAME`` or ``timm:NAME.TAG``.
        weights: see ``weights_file``; "none" draws them from torch's global generator.
        input_shape: (3, S, S).
        drop_path: share of residual branches that are left out in training (stochastic depth).

    Raises:
        UsageError: no such network, or one that does not take the images, the weights or drop_path.
    """
    values, timm = timm_configuration(backbone), timm_library(backbone)
    channels, *sides = input_shape
    if channels != 3 or len(sides) != 2 or sides[0] != sides[1] or sides[0] > MAX_SIDE:
        shape = " x ".join(map(str, input_shape))
        raise UsageError(
            f"backbone '{backbone}' takes square images with 3 channels and up to {MAX_SIDE} pixels, not "
            f"{shape}; use --set backbone=small-cnn"
        )
    side = sides[0]
    arguments: dict[str, Any] = {"drop_path_rate": drop_path} if drop_path else {}
    if values.get("fixed_input_size"):
        arguments["img_size"] = side
    try:
        network = timm.create_model(values["architecture"], num_classes=0, **arguments)
        built = TimmBackbone(network)
    except Exception as error:  # constructors raise many kinds of errors
        if drop_path and "drop_path" in str(error):
            raise UsageError(
                f"drop_path = {drop_path:g}: backbone '{backbone}' has no residual branches to drop; use "
                "--set drop_path=0"
            ) from None
        raise _wrong_size(backbone, side, values, error) from None
    _check_patches(built, backbone, side)
    if (file := weights_file(backbone, weights)) is not None:
        network.load_state_dict(_fitting_state(network, file, backbone, weights, side))
    return built


def _check_patches(built: TimmBackbone, backbone: str, side: int) -> None:
    """Raise a UsageError if a network would ignore pixels at two borders of its images."""
    patch = getattr(getattr(built.network, "patch_embed", None), "patch_size", None)
    (size, *_) = patch if isinstance(patch, tuple) else (patch,)
    if isinstance(size, int) and side % size:
        lower = max(size, side - side % size)
        raise UsageError(
            f"image_size = {side}: backbone '{backbone}' takes multiples of {size} pixels; use --set "
            f"image_size={lower} or {lower + size}"
        )


def _wrong_size(
    backbone: str, side: int, values: dict[str, Any], error: Exception | None = None
) -> UsageError:
    own = values["input_size"][-1]
    reason = "" if error is None else f" ({' '.join(str(error).split())[:120]})"
    return UsageError(
        f"image_size = {side}: backbone '{backbone}' does not take images of this size{reason}; use "
        f"--set image_size={own}"
    )


def _fitting_state(
    network: Any, file: Path, backbone: str, weights: str, side: int
) -> dict[str, Tensor]:
    """The tensors of a file for every tensor of a network, in timm's form."""
    state: Any = state_of_file(file)
    while isinstance(state, dict) and not any(isinstance(v, Tensor) for v in state.values()):
        state = next((state[name] for name in _CONTAINERS if name in state), None)
    converted: Any = state if isinstance(state, dict) else {}
    module = sys.modules[type(network).__module__]
    # Where timm has it: renames the tensors of a network's authors, and interpolates positions.
    if convert := getattr(module, "checkpoint_filter_fn", None):
        try:
            converted = convert(dict(converted), network)
        except Exception as error:  # of any kind, for tensors of another network
            reason = " ".join(str(error).split())[:120] or type(error).__name__
            raise UsageError(
                f"weights = '{weights}': {file.name} does not fit {backbone} ({reason}); give weights of "
                "this network"
            ) from None
    expected = network.state_dict()
    for name, tensor in expected.items():
        stored = converted.get(name)
        if not isinstance(stored, Tensor) or stored.shape != tensor.shape:
            raise UsageError(
                f"weights = '{weights}': {file.name} has no tensor '{name}' that fits {backbone} for "
                f"images of {side} pixels; give weights of this network"
            )
    return {name: converted[name] for name in expected}


def check_timm(
    backbone: str, weights: str, input_shape: tuple[int, ...], drop_path: float = 0.0
) -> None:
    """Build a network and follow one image through it, without computing anything.

    Args: see ``build_timm``.

    Raises:
        UsageError: see ``build_timm``; or the network does not take images of this size.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    logger = logging.getLogger("torch._subclasses.fake_tensor")
    with torch.random.fork_rng(devices=[]):
        built = build_timm(backbone, weights, input_shape, drop_path).eval()
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # it also logs the error that is reported below
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
            shape = tuple(built(torch.zeros(1, *input_shape)).shape)
    except Exception as error:  # of many kinds, from the layers of a network
        values = timm_configuration(backbone)
        raise _wrong_size(backbone, input_shape[1], values, error) from None
    finally:
        logger.setLevel(level)
    if shape != (1, built.width):
        raise UsageError(
            f"backbone '{backbone}' gives {shape[1:]} for an image, not a vector of features; use another "
            f"one, such as {PREFIX}convnext_tiny"
        )
