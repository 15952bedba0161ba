"""Weak and strong views: what they leave alone, what they change, and that samples are independent."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bbam_ray.data import DATASETS, ViewSettings
from bbam_ray.data.datasets.digits import compose_scenes
from bbam_ray.data.sampling.batches import AugmentationNoise
from bbam_ray.data.views.images import NOISE_WIDTH, Views

VECTORS = ViewSettings()
COLOUR = ViewSettings(mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.5), flip=True)


def images(count: int = 8, side: int = 16) -> Tensor:
    g = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, side, side), generator=g, dtype=torch.uint8)


def scenes(count: int = 8) -> Tensor:
    return torch.from_numpy(compose_scenes(count, 0, "train")[0])


def noise(count: int = 8) -> Tensor:
    return AugmentationNoise(0, 0, 0, NOISE_WIDTH).draw(count)


def test_plain_is_scaled_and_normalised_by_channel() -> None:
    inputs = images()
    got = Views(COLOUR, 0.5, 0.5).plain(inputs)
    for channel in range(3):
        expected = (inputs[:, channel].double() / 255 - COLOUR.mean[channel]) / COLOUR.std[channel]
        torch.testing.assert_close(got[:, channel].double(), expected, rtol=1e-5, atol=1e-6)


def test_weak_does_nothing_to_digits_but_normalise() -> None:
    views = Views(DATASETS["digits"].views, 1.0, 0.9)
    assert torch.equal(views.weak(scenes(), noise()), views.plain(scenes()))


def test_weak_mirrors_about_half_of_the_samples() -> None:
    views, inputs, numbers = Views(COLOUR, 1.0, 0.9), images(40), noise(40)
    plain, weak = views.plain(inputs), views.weak(inputs, numbers)
    mirrored = [torch.equal(weak[i], plain[i].flip(-1)) for i in range(40)]
    kept = [torch.equal(weak[i], plain[i]) for i in range(40)]
    assert [m ^ k for m, k in zip(mirrored, kept, strict=True)] == [True] * 40
    assert 8 < sum(mirrored) < 32


@pytest.mark.parametrize("kind", ["digits", "colour"])
def test_strong_without_strength_is_plain(kind: str) -> None:
    settings = ViewSettings(COLOUR.mean, COLOUR.std) if kind == "colour" else DATASETS[kind].views
    inputs = images() if kind == "colour" else scenes()
    views = Views(settings, 0.0, 0.0)
    strong = views.strong(inputs, noise())
    torch.testing.assert_close(strong, views.plain(inputs), rtol=0, atol=1e-4)


def test_strong_without_strength_still_mirrors() -> None:
    views = Views(COLOUR, 0.0, 0.0)
    torch.testing.assert_close(
        views.strong(images(), noise()), views.weak(images(), noise()), rtol=0, atol=1e-4
    )


@pytest.mark.parametrize("magnitude", [0.3, 1.0])
def test_strong_changes_every_sample_within_the_range_of_images(magnitude: float) -> None:
    settings = DATASETS["digits"].views
    views, inputs = Views(settings, magnitude, 0.0), scenes(40)
    before = inputs.clone()
    strong, plain = views.strong(inputs, noise(40)), views.plain(inputs)
    assert torch.equal(inputs, before)
    assert strong.shape == plain.shape and strong.dtype == torch.float32
    assert float((strong - plain).abs().mean(dim=(1, 2, 3)).min()) > 0.01
    restored = strong * settings.std[0] + settings.mean[0]
    assert float(restored.min()) > -1e-5 and float(restored.max()) < 1 + 1e-5
    again = views.strong(inputs, noise(40))
    assert torch.equal(again, strong)


@pytest.mark.parametrize(
    ("centre", "rows", "columns"),
    [
        ((0.5, 0.5), slice(4, 12), slice(4, 12)),
        ((0.0, 0.0), slice(0, 4), slice(0, 4)),
        ((0.99, 0.5), slice(12, 16), slice(4, 12)),
    ],
)
def test_cutout_erases_a_square_and_nothing_else(
    centre: tuple[float, float], rows: slice, columns: slice
) -> None:
    views, numbers = Views(ViewSettings(COLOUR.mean, COLOUR.std), 0.0, 0.5), noise(2)
    numbers[:, 9], numbers[:, 10] = centre
    strong, plain = views.strong(images(2), numbers), views.plain(images(2))
    assert torch.equal(strong[:, :, rows, columns], torch.zeros_like(strong[:, :, rows, columns]))
    plain[:, :, rows, columns] = 0
    torch.testing.assert_close(strong, plain, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", ["images", "features"])
@pytest.mark.parametrize("view", ["weak", "strong"])
def test_a_view_does_not_depend_on_the_other_samples_of_its_batch(view: str, kind: str) -> None:
    """Else the result of a run would change with the batch size or the number of workers."""
    g = torch.Generator().manual_seed(1)
    inputs = images() if kind == "images" else torch.randn(8, 10, generator=g)
    make = getattr(Views(COLOUR if kind == "images" else VECTORS, 0.7, 0.4), view)
    whole, numbers = make(inputs, noise()), noise()
    halves = torch.cat([make(inputs[:3], numbers[:3]), make(inputs[3:], numbers[3:])])
    torch.testing.assert_close(halves, whole, rtol=1e-6, atol=1e-6)
    alone = torch.cat([make(inputs[i : i + 1], numbers[i : i + 1]) for i in range(8)])
    torch.testing.assert_close(alone, whole, rtol=1e-6, atol=1e-6)


def test_feature_vectors_pass_plain_and_weak_unchanged() -> None:
    inputs = torch.randn(8, 10, generator=torch.Generator().manual_seed(2))
    views = Views(VECTORS, 1.0, 0.5)
    assert torch.equal(views.plain(inputs), inputs)
    assert torch.equal(views.weak(inputs, noise()), inputs)
    assert torch.equal(Views(VECTORS, 0.0, 0.5).strong(inputs, noise()), inputs)


def test_strong_drops_and_disturbs_features() -> None:
    inputs = torch.randn(200, 50, generator=torch.Generator().manual_seed(3)) + 4
    before = inputs.clone()
    strong = Views(VECTORS, 1.0, 0.0).strong(inputs, noise(200))
    assert torch.equal(inputs, before)
    dropped = strong == 0
    assert abs(float(dropped.float().mean()) - 0.3) < 0.03
    by_row, by_column = dropped.float().mean(1), dropped.float().mean(0)
    assert float(by_row.std()) < 0.15 and float(by_column.std()) < 0.1  # no row or column favoured
    added = (strong - inputs)[~dropped]
    assert 0.1 < float(added.std()) < 1.0 and abs(float(added.mean())) < 0.05


def test_features_are_centred_and_scaled_each_by_its_own() -> None:
    settings = ViewSettings(mean=(1.0, -2.0), std=(2.0, 0.5))
    views, inputs = Views(settings, 0.0, 0.0), torch.tensor([[3.0, -2.0], [1.0, -1.5]])
    expected = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert torch.equal(views.plain(inputs), expected)
    assert torch.equal(views.weak(inputs, noise(2)), expected)
    assert torch.equal(views.strong(inputs, noise(2)), expected)


@pytest.mark.parametrize("view", ["weak", "strong"])
@pytest.mark.parametrize("shape", [(3, 24, 24), (10,)])
def test_a_rank_without_a_share_of_a_step_gets_no_view(view: str, shape: tuple[int, ...]) -> None:
    settings = COLOUR if len(shape) == 3 else VECTORS
    nothing = torch.zeros(0, *shape, dtype=torch.uint8 if len(shape) == 3 else torch.float32)
    made = getattr(Views(settings, 0.7, 0.4), view)(nothing, noise(0))
    assert made.shape == (0, *shape) and made.dtype == torch.float32
