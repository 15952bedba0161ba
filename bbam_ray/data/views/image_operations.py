"""The 15 operations of RandAugment on batches of 8-bit images, each image with its own strength.

Results are those of Pillow's ``ImageOps``, ``ImageEnhance`` and ``Image.transform`` on one image. No
operation reads a value back from the device or copies one to it, so none makes the host wait.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from bbam_ray.data.views.image_geometry import filled, pixels, rotated, slid

_HOLE, _GREY_HOLE = (125, 122, 113), 122  # color of an erased square, and its luminance
_LUMINANCE = (19595, 38470, 7471)  # ITU-R 601-2, in 1 / 65,536


class Draw(NamedTuple):
    """What is random in one operation on each of B images.

    Args:
        strength: (B,) float64 in (0, 1], the level relative to the highest one.
        sign: (B,) float64, -1 or 1: the direction of a shift, less or more of a property.
        centre: (B, 2) in [0, 1), row and column relative to the sides of the image.
    """

    strength: Tensor
    sign: Tensor
    centre: Tensor


def _invert(images: Tensor, draw: Draw) -> Tensor:
    return 255 - images


def _cutout(images: Tensor, draw: Draw) -> Tensor:
    """A square of up to 20 pixels, centred anywhere."""
    centre = pixels(images, draw.centre)
    half = (20 * draw.strength).round().long().div(2, rounding_mode="floor").unsqueeze(1)
    hole = (_GREY_HOLE,) if images.shape[1] == 1 else _HOLE
    color = [torch.full((1,), value, dtype=torch.uint8, device=images.device) for value in hole]
    return filled(images, centre - half, centre + half, torch.stack(color, dim=1))


def _sharpness(images: Tensor, draw: Draw) -> Tensor:
    """Away from or towards a 3 x 3 mean with weight 5 of the centre; the border stays as it is."""
    values = images.float()
    columns = values[:, :, :-2] + values[:, :, 1:-1] + values[:, :, 2:]
    sums = columns[..., :-2] + columns[..., 1:-1] + columns[..., 2:]
    smooth = values.clone()
    inner = smooth[:, :, 1:-1, 1:-1]
    inner.copy_(((sums + 4 * inner) / 13 + 0.5).floor_())
    return _blended(smooth, values, draw)


def _autocontrast(images: Tensor, draw: Draw) -> Tensor:
    """Stretch the values of each channel to 0 ... 255."""
    flat = images.flatten(2)
    low, high = (values.double().unsqueeze(2) for values in (flat.amin(2), flat.amax(2)))
    spread = (high - low).clamp_min(1)
    scale = (
        torch.full_like(spread, 255) / spread
    )  # 255 / spread would multiply by a rounded inverse
    stretched = (_values(images) * scale + -low * scale).clamp(0, 255)
    return _mapped(images, torch.where(high > low, stretched, _values(images)))


def _posterize(images: Tensor, draw: Draw) -> Tensor:
    """Keep 8 to 4 bits."""
    bits = (8 - 4 * draw.strength).round()
    dropped = (8 - bits).to(torch.uint8).view(-1, 1, 1, 1)
    return (images >> dropped) << dropped


def _shear_x(images: Tensor, draw: Draw) -> Tensor:
    """Rows slide by up to 0.3 of their distance from the upper border."""
    rows = torch.arange(images.shape[2], device=images.device) + 0.5
    return slid(images, (0.3 * draw.strength * draw.sign).unsqueeze(1) * rows)


def _shear_y(images: Tensor, draw: Draw) -> Tensor:
    return _shear_x(images.mT, draw).mT


def _translate_x(images: Tensor, draw: Draw) -> Tensor:
    """By up to 150 / 331 of the width, in whole pixels."""
    shift = 150 / 331 * draw.strength * draw.sign * images.shape[3]
    return slid(images, (shift + 0.5).floor().unsqueeze(1).expand(-1, images.shape[2]))


def _translate_y(images: Tensor, draw: Draw) -> Tensor:
    return _translate_x(images.mT, draw).mT


def _rotate(images: Tensor, draw: Draw) -> Tensor:
    """By up to 30 degrees, always counter-clockwise as published."""
    return rotated(images, math.pi / 6 * draw.strength)


def _equalize(images: Tensor, draw: Draw) -> Tensor:
    """Make all values of each channel about equally frequent."""
    values = images.flatten(2).long()
    counts = torch.zeros(*values.shape[:2], 256, dtype=torch.int64, device=images.device)
    counts.scatter_add_(2, values, torch.ones_like(values))
    below = counts.cumsum(2) - counts
    # 1 / 255 of all pixels except those of the highest value
    step = below.gather(2, values.amax(2, keepdim=True)) // 255
    table = (step // 2 + below) // step.clamp_min(1)
    return _mapped(images, torch.where(step > 0, table.clamp_max(255), _values(images).long()))


def _contrast(images: Tensor, draw: Draw) -> Tensor:
    """Away from or towards the mean grey."""
    mean = (_luminance(images).double().mean(dim=(1, 2, 3), keepdim=True) + 0.5).floor()
    return _blended(mean.float(), images.float(), draw)


def _color(images: Tensor, draw: Draw) -> Tensor:
    """Away from or towards the grey image."""
    return _blended(_luminance(images), images.float(), draw)


def _solarize(images: Tensor, draw: Draw) -> Tensor:
    """Invert values from a threshold on, 256 to 0."""
    threshold = (256 - 256 * draw.strength).ceil().to(torch.uint8).view(-1, 1, 1, 1)
    return torch.where(images < threshold, images, 255 - images)


def _brightness(images: Tensor, draw: Draw) -> Tensor:
    """Away from or towards black."""
    values = images.float()
    return _blended(torch.zeros_like(values[:1]), values, draw)


#: by name, in the order in which a number selects them
OPERATIONS: dict[str, Callable[[Tensor, Draw], Tensor]] = {
    "invert": _invert,
    "cutout": _cutout,
    "sharpness": _sharpness,
    "autocontrast": _autocontrast,
    "posterize": _posterize,
    "shear x": _shear_x,
    "translate x": _translate_x,
    "translate y": _translate_y,
    "shear y": _shear_y,
    "rotate": _rotate,
    "equalize": _equalize,
    "contrast": _contrast,
    "color": _color,
    "solarize": _solarize,
    "brightness": _brightness,
}


def _blended(plain: Tensor, values: Tensor, draw: Draw) -> Tensor:
    """``plain`` + f (``values`` - ``plain``) with f = 1 +- 0.9 x strength, cut to uint8."""
    factor = (1 + 0.9 * draw.strength * draw.sign).float().view(-1, 1, 1, 1)
    return (plain + factor * (values - plain)).clamp_(0, 255).to(torch.uint8)


def _luminance(images: Tensor) -> Tensor:
    """Grey levels (B, 1, H, W) float32, whole numbers."""
    values = images.float()
    if images.shape[1] == 1:
        return values
    red, green, blue = (values[:, c : c + 1] * weight for c, weight in enumerate(_LUMINANCE))
    return ((red + green + blue + 32768) / 65536).floor()  # exact: below 2^24


def _values(images: Tensor) -> Tensor:
    """(256,) float64: 0 ... 255."""
    return torch.arange(256, dtype=torch.float64, device=images.device)


def _mapped(images: Tensor, table: Tensor) -> Tensor:
    """Replace each value v of a channel by entry v of the channel's table (B, C, 256)."""
    entries = table.to(torch.uint8).expand(*images.shape[:2], 256)
    return entries.gather(2, images.flatten(2).long()).view(images.shape)
