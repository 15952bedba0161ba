"""The strong view ``uda``: a rectangle of random color, then RandAugment as UDA has it.

Two of 15 operations are drawn, independently of each other, each with a level of 1 to 9, and each is
applied with probability 1/2 (docs/method.md, section 7). Sources: [Xie et al., NeurIPS
2020](https://arxiv.org/abs/1904.12848), ranges of [Cubuk et al., CVPR 2019](https://arxiv.org/abs/1805.09501).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bbam_ray.data.views.image_geometry import filled, pixels
from bbam_ray.data.views.image_operations import OPERATIONS, Draw

LEVELS = 9
_NUMBERS = 3  # random numbers of an operation
#: what one random number chooses: operation, level, sign, and whether the operation is applied
_CHOICES = len(OPERATIONS) * LEVELS * 2 * 2


def rectangle_erased(images: Tensor, noise: Tensor, size: float) -> Tensor:
    """Images with a rectangle of random color, centred anywhere and clipped at the border.

    Args:
        images: (B, C, H, W) uint8.
        noise: (B, 5) in [0, 1): centre and color.
        size: sides of the rectangle relative to those of the image; 0 = nothing is erased.
    """
    if size == 0:
        return images
    centre = pixels(images, noise)
    half = [int(size * side + 0.5) // 2 for side in images.shape[2:]]
    reach = torch.stack([torch.full_like(centre[:, 0], side) for side in half], dim=1)
    color = (noise[:, 2 : 2 + images.shape[1]] * 256).to(torch.uint8)
    return filled(images, centre - reach, centre + reach + 1, color)


def rand_augmented(images: Tensor, noise: Tensor) -> Tensor:
    """Images after two random operations.

    Args:
        images: (B, C, H, W) uint8; not changed.
        noise: (B, 6) in [0, 1).
    """
    for first in (0, _NUMBERS):
        operation, draw = drawn(noise[:, first : first + _NUMBERS])
        for number, operate in enumerate(OPERATIONS.values()):
            images = _changed(images, operation == number, operate, draw)
    return images


def drawn(noise: Tensor) -> tuple[Tensor, Draw]:
    """The operation of each image, and what is random in it.

    Args:
        noise: (B, 3) in [0, 1): the choice, and a centre.

    Returns:
        (B,) positions in ``OPERATIONS``, -1 where none is applied, and the draw.
    """
    choice = (noise[:, 0].double() * _CHOICES).long()
    choice, operation = choice // len(OPERATIONS), choice % len(OPERATIONS)
    choice, level = choice // LEVELS, choice % LEVELS + 1
    is_applied, sign = choice % 2 == 0, choice // 2 * 2 - 1
    draw = Draw(level.double() / LEVELS, sign.double(), noise[:, 1:])
    return torch.where(is_applied, operation, -1), draw


def _changed(
    images: Tensor, chosen: Tensor, operate: Callable[[Tensor, Draw], Tensor], draw: Draw
) -> Tensor:
    """Images, of which the chosen ones have gone through an operation.

    Args:
        chosen: (B,) bool.
    """
    if not computes_chosen_only(images.device):
        return torch.where(chosen.view(-1, 1, 1, 1), operate(images, draw), images)
    if not chosen.any():
        return images
    changed = images.clone()
    changed[chosen] = operate(images[chosen], Draw(*(part[chosen] for part in draw)))
    return changed


def computes_chosen_only(device: torch.device) -> bool:
    """Whether an operation runs on its images alone; elsewhere the host would wait for their number."""
    return device.type == "cpu"
