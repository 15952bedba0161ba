"""Every operation of RandAugment equals Pillow's on one image at a time, for colour and grey images."""

from __future__ import annotations

import pytest
import torch
from pillow_operations import (
    LEVELS,
    SIGNED,
    TOLERANCE,
    as_image,
    as_pixels,
    photographs,
    reference,
)
from torch import Tensor

from bbam_ray.data.views.image_operations import OPERATIONS, Draw


def draw_of(levels: list[int], sign: int, centre: Tensor) -> Draw:
    strength = torch.tensor(levels, dtype=torch.float64) / 9
    return Draw(strength, torch.full_like(strength, sign), centre)


@pytest.mark.parametrize("shape", [(3, 48, 48), (1, 24, 24), (3, 40, 56)], ids=str)
@pytest.mark.parametrize(
    ("name", "sign"), [(n, s) for n in OPERATIONS for s in ((-1, 1) if n in SIGNED else (1,))]
)
def test_an_operation_is_that_of_pillow(name: str, sign: int, shape: tuple[int, int, int]) -> None:
    images = photographs(*shape)
    centre = torch.rand(9, 2, generator=torch.Generator().manual_seed(1))
    before = images.clone()
    made = OPERATIONS[name](images, draw_of([*LEVELS], sign, centre))
    expected = torch.stack(
        [
            as_pixels(reference(name, as_image(images[i]), level, sign, centre[i].tolist()))
            for i, level in enumerate(LEVELS)
        ]
    )
    assert torch.equal(images, before)
    assert made.dtype == torch.uint8 and made.shape == images.shape
    share, levels = TOLERANCE.get(name, (0, 0))
    difference = (made.int() - expected.int()).abs()
    assert float((difference > 0).float().mean()) <= share
    assert int(difference.max()) <= levels
    if not (name == "color" and shape[0] == 1):  # a grey image has no color
        assert not torch.equal(made, images)


def test_images_without_spread_or_with_few_pixels_stay_as_they_are() -> None:
    """No spread, or too few pixels to equalize: Pillow then leaves an image as it is."""
    flat = torch.full((1, 3, 12, 12), 77, dtype=torch.uint8)
    few = torch.randint(0, 256, (1, 3, 12, 12), dtype=torch.uint8)
    draw = draw_of([5], 1, torch.zeros(1, 2))
    for images in (flat, few):
        for name in ("autocontrast", "equalize"):
            expected = as_pixels(reference(name, as_image(images[0]), 5, 1, (0, 0)))
            assert torch.equal(OPERATIONS[name](images, draw)[0], expected), name


@pytest.mark.parametrize("centre", [(0.0, 0.0), (0.999, 0.999), (0.5, 0.0)])
def test_an_erased_square_is_clipped_at_the_border(centre: tuple[float, float]) -> None:
    images = photographs(3, 30, 30)[:1]
    made = OPERATIONS["cutout"](images, draw_of([9], 1, torch.tensor([centre])))
    expected = as_pixels(reference("cutout", as_image(images[0]), 9, 1, centre))
    assert torch.equal(made[0], expected)


def test_there_are_the_fifteen_operations_of_uda() -> None:
    assert len(OPERATIONS) == 15


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_does_not_depend_on_the_other_images(name: str) -> None:
    images, centre = photographs(3, 32, 32), torch.rand(9, 2)
    draw = draw_of([*LEVELS], -1, centre)
    whole = OPERATIONS[name](images, draw)
    for i in range(9):
        one = Draw(*(part[i : i + 1] for part in draw))
        assert torch.equal(OPERATIONS[name](images[i : i + 1], one)[0], whole[i])
