"""The arithmetic of a refresh and the views of images on a GPU."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from bbam_ray.data.datasets.image_base import ImageDataset
from bbam_ray.data.views.images import NOISE_WIDTH, Views
from bbam_ray.engine.evaluation import channels_last
from bbam_ray.methods.bbam import Bbam
from benchmarks.measure import alternate, timed_alone
from benchmarks.refresh import draw, refreshed


def differing_entries(here: Bbam, there: Bbam) -> int:
    """Pseudo-labels, confident entries and selected negatives that are not the same on two devices."""

    def entries(method: Bbam) -> list[torch.Tensor]:
        assigned = method.assigned.labels, method.assigned.confident
        return [*assigned, method.labeled_selected, method.unlabeled_selected]

    pairs = zip(entries(here), entries(there), strict=True)
    return sum(int((a.cpu() != b.cpu()).sum()) for a, b in pairs)


def arithmetic(device: str, rows: tuple[int, int], *, labels: int, width: int) -> dict[str, Any]:
    """The arithmetic of a refresh on the device, against that on the CPU of the machine.

    Args:
        rows: labelled and unlabelled samples.
        labels, width: K and D.
    """
    drawn = draw(*rows, labels, width)
    on_device = [tensor.to(device) for tensor in drawn]

    def there() -> Bbam:  # logits replace the cosines
        return refreshed(drawn[0].clone(), *drawn[1:])

    def here() -> Bbam:
        return refreshed(on_device[0].clone(), *on_device[1:])

    different = differing_entries(here(), there())
    details = {"identical": different == 0, "differing_entries": different}
    return alternate(there, here, 7) | {"details": details}


def views(device: str, kind: str, *, side: int, batch: int, repeats: int = 20) -> dict[str, Any]:
    """Weak or strong views of a batch of images that is on the device.

    Args:
        kind: "weak", "strong", or "uda", the published strong view.
        side: of the images, in pixels.
        batch: images.
        repeats: batches in a round.
    """
    strong_view = "uda" if kind == "uda" else "affine"
    settings = replace(ImageDataset.views, strong_view=strong_view)
    made = Views(settings, magnitude=1.0, cutout=0.5)
    g = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8, generator=g)
    noise = torch.rand(batch, NOISE_WIDTH, generator=g)
    samples = images.to(device), noise.to(device)
    transform = made.weak if kind == "weak" else made.strong

    def work() -> None:
        for _ in range(repeats):
            channels_last(transform(*samples))

    timed = timed_alone(work, 5)
    return timed | {"details": {"images_per_second": batch * repeats / timed["ours_s"]}}
