"""The strong view ``uda``: its draws, its rectangle, and the whole view against one image at a time."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from PIL import ImageDraw
from pillow_operations import TOLERANCE, as_image, as_pixels, photographs, reference
from torch import Tensor
from waiting import AsksTheDevice

from bbam_ray.data import DATASETS, ViewSettings
from bbam_ray.data.datasets.digits import compose_scenes
from bbam_ray.data.sampling.batches import AugmentationNoise
from bbam_ray.data.views import rand_augment
from bbam_ray.data.views.image_operations import OPERATIONS
from bbam_ray.data.views.images import NOISE_WIDTH, Views
from bbam_ray.data.views.rand_augment import drawn, rand_augmented, rectangle_erased

NAMES = list(OPERATIONS)
CHOICES = 15 * 9 * 2 * 2
UDA = ViewSettings(flip=True, strong_view="uda")


def noise(count: int, seed: int = 0) -> Tensor:
    return AugmentationNoise(seed, 0, 0, NOISE_WIDTH).draw(count)


def photos(count: int, channels: int = 3, side: int = 32) -> Tensor:
    return photographs(channels, side, side).repeat(-(-count // 9), 1, 1, 1)[:count]


def test_every_choice_has_the_same_share_of_the_random_numbers() -> None:
    numbers = torch.zeros(CHOICES, 3)
    numbers[:, 0] = (torch.arange(CHOICES) + 0.5) / CHOICES
    operation, draw = drawn(numbers)
    level = (draw.strength * 9).round().long()
    rows = zip(operation.tolist(), level.tolist(), draw.sign.tolist(), strict=True)
    count = Counter(rows)
    for number in range(15):
        for each in range(1, 10):
            assert count[(number, each, 1.0)] == count[(number, each, -1.0)] == 1
    assert sum(n for row, n in count.items() if row[0] == -1) == CHOICES // 2


def test_operations_levels_and_applications_of_an_epoch_are_uniform_and_independent() -> None:
    numbers = noise(40_000)
    rounds = [drawn(numbers[:, first : first + 3]) for first in (6, 9)]
    for operation, draw in rounds:
        applied = operation >= 0
        assert abs(float(applied.float().mean()) - 0.5) < 0.01
        shares = torch.bincount(operation[applied], minlength=15) / int(applied.sum())
        assert float((shares - 1 / 15).abs().max()) < 0.007
        levels = torch.bincount((draw.strength * 9).round().long(), minlength=10) / len(applied)
        assert float(levels[0]) == 0 and float((levels[1:] - 1 / 9).abs().max()) < 0.007
        assert abs(float(draw.sign.mean())) < 0.02
    both = [operation for operation, _ in rounds]
    same = both[0] == both[1]
    same &= both[0] >= 0
    assert abs(float(same.float().mean()) - 0.25 / 15) < 0.003  # drawn with replacement
    centres = torch.cat([rounds[0][1].centre, rounds[1][1].centre], dim=1)
    correlation = torch.corrcoef(torch.cat([centres, numbers[:, :6]], dim=1).T)
    assert float((correlation - torch.eye(10)).abs().max()) < 0.03


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [0.5, 0.3, 0.99])
def test_the_rectangle_is_drawn_as_pillow_draws_it(size: float, channels: int) -> None:
    images, numbers = photographs(channels, 40, 56), noise(9)[:, :5]
    numbers[0, :2], numbers[1, :2] = 0.0, 1 - 2**-24
    made = rectangle_erased(images, numbers, size)
    half = [int(size * side + 0.5) // 2 for side in (40, 56)]
    for i in range(9):
        row, column = int(numbers[i, 0] * 40), int(numbers[i, 1] * 56)
        color = [int(value * 256) for value in numbers[i, 2 : 2 + channels]]
        image = as_image(images[i]).copy()
        ImageDraw.Draw(image).rectangle(
            [
                max(0, column - half[1]),
                max(0, row - half[0]),
                min(56, column + half[1]),
                min(40, row + half[0]),
            ],
            fill=tuple(color) if channels == 3 else color[0],
        )
        assert torch.equal(made[i], as_pixels(image))
    assert not torch.equal(made, images)


def test_half_the_sides_are_a_quarter_of_the_area_away_from_the_border() -> None:
    images, numbers = photos(1, side=224), torch.tensor([[0.5, 0.5, 0.1, 0.2, 0.3]])
    erased = (rectangle_erased(images, numbers, 0.5) != images).any(1)
    assert abs(float(erased.float().mean()) - 0.25) < 0.01


def expected_view(image: Tensor, numbers: Tensor) -> tuple[Tensor, list[str]]:
    """One view, computed with Pillow, and the operations that were applied."""
    if numbers[0] < 0.5:
        image = image.flip(-1)
    image = rectangle_erased(image[None], numbers[None, 1:6], 0.5)[0]
    names = []
    for first in (6, 9):
        choice = int(numbers[first].double() * CHOICES)
        name, level = NAMES[choice % 15], choice // 15 % 9 + 1
        if choice // (15 * 9) % 2 == 0:
            sign = choice // (15 * 9 * 2) * 2 - 1
            centre = numbers[first + 1 : first + 3].tolist()
            image = as_pixels(reference(name, as_image(image), level, sign, centre))
            names.append(name)
    return image.float() / 255, names


@pytest.mark.parametrize("channels", [1, 3])
def test_the_view_is_that_of_one_image_after_the_other(channels: int) -> None:
    images, numbers = photos(180, channels), noise(180)
    made = Views(UDA, 0.5, 0.5).strong(images, numbers)
    seen: Counter[str] = Counter()
    for i in range(180):
        expected, names = expected_view(images[i], numbers[i])
        seen.update(names)
        if TOLERANCE.keys() & names:  # a difference of one level may grow in the second operation
            assert float(((made[i] - expected).abs() > 1.5 / 255).float().mean()) < 0.05
        else:
            assert torch.allclose(made[i], expected, rtol=0, atol=1e-6), names
    assert seen.keys() == set(NAMES)


def test_the_strength_of_affine_views_does_not_matter_and_the_cutout_does() -> None:
    images, numbers = photos(9), noise(9)
    made = Views(UDA, 0.5, 0.5).strong(images, numbers)
    assert torch.equal(Views(UDA, 0.0, 0.5).strong(images, numbers), made)
    without = Views(UDA, 0.5, 0.5).with_cutout(0.0).strong(images, numbers)
    assert not torch.equal(without, made)
    none = numbers.clone()
    none[:, [6, 9]] = 135.5 / CHOICES  # nothing is applied
    plain = Views(UDA, 0.5, 0.0).strong(images, none)
    assert torch.equal(plain, Views(UDA, 0.5, 0.0).weak(images, none))


def test_the_default_view_is_another_one() -> None:
    affine = Views(ViewSettings(flip=True), 0.5, 0.5).strong(photos(9), noise(9))
    assert not torch.allclose(affine, Views(UDA, 0.5, 0.5).strong(photos(9), noise(9)))


@pytest.mark.parametrize("kind", ["colour", "digits"])
def test_a_view_follows_from_its_sample_and_its_numbers_alone(kind: str) -> None:
    """So it is the same for any batch, number of workers, and after a checkpoint."""
    images = photos(30)
    settings = UDA
    if kind == "digits":
        images = torch.from_numpy(compose_scenes(30, 0, "train")[0])
        options = DATASETS["digits"].Options(strong_view="uda")
        settings = options.applied(DATASETS["digits"].views)
    before, numbers, views = images.clone(), noise(30), Views(settings, 0.3, 0.5)
    whole = views.strong(images, numbers)
    assert torch.equal(images, before) and whole.shape == images.shape
    assert whole.dtype == torch.float32 and torch.isfinite(whole).all()
    assert torch.equal(views.strong(images, numbers), whole)
    shares = [torch.arange(rank, 30, 3) for rank in range(3)]
    for share in [*shares, torch.arange(29, -1, -1), torch.tensor([4])]:
        assert torch.equal(views.strong(images[share], numbers[share]), whole[share])
    assert views.strong(images[:0], numbers[:0]).shape == (0, *images.shape[1:])


@pytest.mark.parametrize("channels", [1, 3])
def test_on_a_gpu_the_same_view_is_made_without_waiting(
    channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs the way of a GPU on the CPU; tests/gpu runs it on a GPU."""
    images, numbers = photos(60, channels), noise(60)[:, 6:]
    expected = rand_augmented(images, numbers)
    monkeypatch.setattr(rand_augment, "computes_chosen_only", lambda device: False)
    with AsksTheDevice() as asked:
        made: Any = rand_augmented(images, numbers)
        rectangle_erased(images, noise(60)[:, :5], 0.5)
    assert asked.count == 0
    assert torch.equal(made, expected)
