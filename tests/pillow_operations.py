"""The operations of RandAugment on one image with Pillow, as the official code has them; for tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

LEVELS = range(1, 10)
SIGNED = (
    "sharpness",
    "contrast",
    "color",
    "brightness",
    "shear x",
    "shear y",
    "translate x",
    "translate y",
)
#: share of pixels that may differ, and by how many of 255 levels; Pillow rotates in fixed point
TOLERANCE = {"shear x": (0.002, 1), "shear y": (0.002, 1), "rotate": (0.004, 255)}


def photographs(channels: int, height: int, width: int) -> Tensor:
    """One smooth, noisy image for each level, of different brightness: (9, C, H, W) uint8."""
    rng = np.random.default_rng(height)
    batch = []
    for level in LEVELS:
        small = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        pixels = np.asarray(
            Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
        )
        noisy = pixels.astype(int) + rng.integers(-20, 21, pixels.shape)
        batch.append((noisy.clip(0, 255) * (0.4 + level / 15)).astype(np.uint8))
    return torch.from_numpy(np.stack(batch).transpose(0, 3, 1, 2)[:, :channels].copy())


def as_image(pixels: Tensor) -> Image.Image:
    array = pixels.permute(1, 2, 0).numpy()
    return Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)


def as_pixels(image: Image.Image) -> Tensor:
    array = np.array(image)
    return torch.from_numpy(array if array.ndim == 3 else array[:, :, None]).permute(2, 0, 1)


def up_to(most: float, level: int) -> float:
    return float(np.linspace(0, most, 10)[level])


def reference(name: str, image: Image.Image, level: int, sign: int, centre: Any) -> Image.Image:
    """The operation as the official code has it, with Pillow."""
    width, height = image.size
    outside: Any = 128 if image.mode == "L" else (128, 128, 128)
    enhancers = {
        "sharpness": ImageEnhance.Sharpness,
        "contrast": ImageEnhance.Contrast,
        "color": ImageEnhance.Color,
        "brightness": ImageEnhance.Brightness,
    }
    if name in enhancers:
        return enhancers[name](image).enhance(1 + sign * up_to(0.9, level))
    shear, shift = sign * up_to(0.3, level), sign * up_to(150 / 331, level)
    matrices = {
        "shear x": (1, shear, 0, 0, 1, 0),
        "shear y": (1, 0, 0, shear, 1, 0),
        "translate x": (1, 0, shift * width, 0, 1, 0),
        "translate y": (1, 0, 0, 0, 1, shift * height),
    }
    if name in matrices:
        kind = Image.Resampling.BICUBIC if "shear" in name else Image.Resampling.NEAREST
        affine = Image.Transform.AFFINE
        return image.transform(image.size, affine, matrices[name], kind, fillcolor=outside)
    if name == "rotate":
        return image.rotate(up_to(30, level), fillcolor=outside)
    if name == "posterize":
        return ImageOps.posterize(image, int(np.round(np.linspace(8, 4, 10)[level])))
    if name == "solarize":
        return ImageOps.solarize(image, np.linspace(256, 0, 10)[level])
    if name == "cutout":
        half = int(np.round(up_to(20, level))) // 2
        row, column = int(centre[0] * height), int(centre[1] * width)
        pixels = np.array(image)
        hole = pixels[max(0, row - half) : row + half, max(0, column - half) : column + half]
        hole[:] = 122 if image.mode == "L" else (125, 122, 113)
        return Image.fromarray(pixels)
    return {
        "invert": ImageOps.invert,
        "autocontrast": ImageOps.autocontrast,
        "equalize": ImageOps.equalize,
    }[name](image)
