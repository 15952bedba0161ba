"""Plain image loading: an image is decoded for every use, into two views."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from bbam_ray.data.datasets.image_base import ImageDataset

SETTINGS = ImageDataset.views


def make_images(folder: Path, count: int, smallest: int = 230, largest: int = 290) -> list[Path]:
    """Photograph-like JPEGs: smooth shapes and a little noise.

    Args:
        smallest, largest: bounds of their sides, in pixels.
    """
    rng = np.random.default_rng(0)
    paths = []
    for number in range(count):
        small = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
        size = (int(rng.integers(smallest, largest)), int(rng.integers(smallest, largest)))
        pixels = np.asarray(Image.fromarray(small).resize(size, Image.Resampling.BICUBIC))
        noisy = pixels.astype(np.int16) + rng.integers(-12, 13, pixels.shape, dtype=np.int16)
        path = folder / f"{number:05d}.jpg"
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=90)
        paths.append(path)
    return paths


class PlainImages(Dataset[tuple[Tensor, Tensor, int]]):
    """Weak view, strong view and row index of an image, which is decoded for every access.

    Args:
        paths: of the images.
        side: of the views, in pixels.
        strong: whether to make the strong view; else the weak view is returned in its place.
    """

    def __init__(self, paths: list[Path], side: int, *, strong: bool = True) -> None:
        self._paths = paths
        normalize = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
        normalize += [v2.Normalize(list(SETTINGS.mean), list(SETTINGS.std))]
        resized = [v2.Resize((side, side)), v2.RandomHorizontalFlip()]
        self._weak = v2.Compose([*resized, *normalize])
        erased = v2.RandomErasing(p=1.0)
        self._strong = (
            v2.Compose([*resized, v2.RandAugment(), *normalize, erased]) if strong else None
        )

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor, int]:
        with Image.open(self._paths[row]) as image:
            decoded = image.convert("RGB")
        weak = self._weak(decoded)
        return weak, self._strong(decoded) if self._strong else weak, row


def plain_loader(
    images: PlainImages, batch: int, *, shuffle: bool = True
) -> DataLoader[tuple[Tensor, Tensor, int]]:
    """A loader with a process per CPU; the processes persist, so that starting them is not measured."""
    return DataLoader(
        images,
        batch_size=batch,
        shuffle=shuffle,
        num_workers=os.cpu_count() or 1,
        persistent_workers=True,
    )
