"""What the published strong view costs on a CPU: ``uda`` compared with ``affine``, batch by batch."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch

from bbam_ray.data.datasets.image_base import ImageDataset
from bbam_ray.data.views.images import NOISE_WIDTH, Views
from bbam_ray.engine.evaluation import channels_last
from bbam_ray.engine.process import keep_freed_memory
from benchmarks.measure import Measured, alternate

KINDS = ("affine", "uda")


class Batches:
    """Batches of random images and the random numbers of their views.

    Args:
        count: batches.
        batch: images of each.
        side: of the images, in pixels.
    """

    def __init__(self, count: int, batch: int, side: int) -> None:
        g = torch.Generator().manual_seed(0)
        shape = (batch, 3, side, side)
        self.images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=g)
        self.noise = [torch.rand(batch, NOISE_WIDTH, generator=g) for _ in range(count)]

    def strong(self, kind: str) -> None:
        """Compute the strong view of every batch.

        Args:
            kind: value of the setting ``strong_view``.
        """
        views = Views(replace(ImageDataset.views, strong_view=kind), magnitude=0.5, cutout=0.5)
        for numbers in self.noise:
            channels_last(views.strong(self.images, numbers))


def run(full: bool) -> list[Measured]:
    """Twenty batches of each size if ``full``, else four."""
    keep_freed_memory()
    return [measured(20 if full else 4, 32, side, 7 if full else 3) for side in (96, 224)]


def measured(count: int, batch: int, side: int, rounds: int) -> Measured:
    """A row: plain is the strong view ``affine``, ours is ``uda``."""
    batches = Batches(count, batch, side)
    plain, ours = (partial(batches.strong, kind) for kind in KINDS)
    timed: dict[str, Any] = alternate(plain, ours, rounds)
    timed["details"] = {"ms_per_image": 1e3 * timed["ours_s"] / (count * batch)}
    case = f"strong, {count} batches of {batch} images of {side} px; plain: affine, ours: uda"
    return Measured("views", case, **timed)
