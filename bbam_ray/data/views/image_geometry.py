"""Rectangles, sliding rows and rotations in batches of 8-bit images (B, C, H, W), each image its own.

Nothing here makes the host wait for the device.
"""

from __future__ import annotations

import torch
from torch import Tensor

OUTSIDE = 128  # the grey of pixels that come from outside the image


def pixels(images: Tensor, centre: Tensor) -> Tensor:
    """Rows and columns (B, 2) of positions (B, 2) in [0, 1) relative to the sides of the images."""
    sides = images.shape[2:]
    return torch.stack([(centre[:, axis] * sides[axis]).long() for axis in range(2)], dim=1)


def filled(images: Tensor, start: Tensor, end: Tensor, color: Tensor) -> Tensor:
    """Images with a rectangle of one color, which may extend beyond them.

    Args:
        images: (B, C, H, W) uint8.
        start, end: (B, 2) its first row and column, and the first ones after it.
        color: (B, C) or (1, C) uint8.
    """
    rows, columns = (torch.arange(side, device=images.device) for side in images.shape[2:])
    in_rows = (rows >= start[:, 0:1]) & (rows < end[:, 0:1])
    in_columns = (columns >= start[:, 1:2]) & (columns < end[:, 1:2])
    inside = (in_rows.unsqueeze(2) & in_columns.unsqueeze(1)).unsqueeze(1)
    return torch.where(inside, color[:, :, None, None], images)


def slid(images: Tensor, shift: Tensor) -> Tensor:
    """Images whose pixel x of a row comes from x + shift: cubic between pixels, grey from outside.

    Args:
        images: (B, C, H, W) uint8.
        shift: (B, H) float64, in pixels.
    """
    height, width = images.shape[2:]
    whole = shift.floor()
    part = (shift - whole).float()[:, None, :, None]
    left = torch.arange(width, device=images.device) + whole.long().unsqueeze(2)
    rows = torch.arange(height, device=images.device).unsqueeze(1) * width
    a, b, c, d = (
        gathered(images, rows + (left + offset).clamp(0, width - 1)).float()
        for offset in range(-1, 3)
    )
    # Cubic convolution (Keys, 1981) with the parameter -1 that Pillow has.
    value = b + part * (c - a + part * (2 * (a - b) + c - d + part * (b - a + d - c)))
    position = left.unsqueeze(1) + part
    outside = (position < -0.5) | (position >= width - 0.5)
    return value.clamp_(0, 255).to(torch.uint8).masked_fill_(outside, OUTSIDE)


def rotated(images: Tensor, angle: Tensor) -> Tensor:
    """Images turned about their centre: nearest pixels, grey from outside.

    Args:
        images: (B, C, H, W) uint8.
        angle: (B,) in radians, counter-clockwise.
    """
    height, width = images.shape[2:]
    sine, cosine = (f(angle.float()).view(-1, 1, 1) for f in (torch.sin, torch.cos))
    y = (torch.arange(height, device=images.device) + 0.5 - height / 2).view(-1, 1)
    x = torch.arange(width, device=images.device) + 0.5 - width / 2
    rows = (sine * x + cosine * y + height / 2).floor().long()
    columns = (cosine * x - sine * y + width / 2).floor().long()
    outside = (rows < 0) | (rows >= height) | (columns < 0) | (columns >= width)
    turned = gathered(images, rows.clamp_(0, height - 1) * width + columns.clamp_(0, width - 1))
    return turned.masked_fill_(outside.unsqueeze(1), OUTSIDE)


def gathered(images: Tensor, source: Tensor) -> Tensor:
    """Images whose pixels come from positions (B, H, W) in the flattened images, for all channels."""
    positions = source.flatten(1).unsqueeze(1).expand(-1, images.shape[1], -1)
    return images.flatten(2).gather(2, positions).view(images.shape)
