"""Decoded images are kept in one file: decoded once, never stale, never half."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bbam_ray.data import image_cache
from bbam_ray.data.image_cache import cached_images, read_image
from bbam_ray.errors import UsageError


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Five images of different sizes, each of one brightness."""
    made = []
    for number in range(5):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (20 + number, 30), (40 * number,) * 3).save(path)
        made.append(path)
    return made


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The images that were really decoded, in no particular order."""
    seen: list[Path] = []

    def counted(path: Path, side: int) -> np.ndarray:
        seen.append(path)
        return read_image(path, side)

    monkeypatch.setattr(image_cache, "read_image", counted)
    return seen


def stored(cache: Path) -> list[Path]:
    return sorted(path for path in cache.rglob("*") if path.is_file())


def test_the_second_call_decodes_nothing(
    paths: list[Path], decoded: list[Path], cache: Path
) -> None:
    first = cached_images("set", paths, 8)
    assert sorted(decoded) == paths
    second = cached_images("set", paths, 8)
    assert len(decoded) == 5 and len(stored(cache)) == 1
    np.testing.assert_array_equal(first, second)
    assert first.shape == (5, 3, 8, 8) and first.dtype == np.uint8
    np.testing.assert_array_equal(
        first[:, 0, 0, 0], [0, 40, 80, 120, 160]
    )  # in the order asked for


def test_the_images_are_mapped_and_cannot_be_written(paths: list[Path]) -> None:
    images = cached_images("set", paths, 8)
    assert isinstance(images, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        images[0] = 0


def test_a_changed_image_makes_a_new_file(
    paths: list[Path], decoded: list[Path], cache: Path
) -> None:
    cached_images("set", paths, 8)
    Image.new("RGB", (50, 50), (255, 255, 255)).save(paths[2])
    changed = cached_images("set", paths, 8)
    assert len(decoded) == 10 and len(stored(cache)) == 2
    assert changed[2].min() == 255


def test_time_order_and_size_are_part_of_the_name(paths: list[Path], cache: Path) -> None:
    cached_images("set", paths, 8)
    status = paths[0].stat()
    os.utime(paths[0], ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))
    cached_images("set", paths, 8)
    assert len(stored(cache)) == 2
    turned = cached_images("set", paths[::-1], 8)
    assert turned[0, 0, 0, 0] == 160 and len(stored(cache)) == 3
    assert cached_images("set", paths, 12).shape == (5, 3, 12, 12)
    assert len(stored(cache)) == 4


def test_a_torn_temporary_file_is_never_used(paths: list[Path], cache: Path) -> None:
    expected = np.array(cached_images("set", paths, 8))
    (whole,) = stored(cache)
    torn = whole.with_name(f".{whole.name}.4711")  # as a killed process leaves it
    torn.write_bytes(whole.read_bytes()[:90])
    whole.unlink()
    np.testing.assert_array_equal(cached_images("set", paths, 8), expected)


def test_an_unreadable_image_is_named_and_nothing_is_kept(paths: list[Path], cache: Path) -> None:
    paths[3].write_bytes(b"\x89PNG but no more")
    with pytest.raises(UsageError, match=r"3\.png: not a readable image.*replace or remove"):
        cached_images("set", paths, 8)
    assert stored(cache) == []


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "CMYK", "LA"])
def test_images_of_every_mode_become_three_channels(mode: str, tmp_path: Path) -> None:
    path = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    Image.new("RGB", (10, 14), (255, 255, 255)).convert(mode).save(path)
    image = read_image(path, 6)
    assert image.shape == (3, 6, 6) and image.dtype == np.uint8
    assert image.min() >= 254


def test_an_image_is_resized_without_keeping_its_aspect_ratio(tmp_path: Path) -> None:
    pixels = np.zeros((40, 80, 3), dtype=np.uint8)
    pixels[:, 40:, 0], pixels[20:, :, 1] = 255, 255  # right half red, lower half green
    Image.fromarray(pixels).save(tmp_path / "image.png")
    image = read_image(tmp_path / "image.png", 8)
    assert image[0, :, :3].max() == 0 and image[0, :, 5:].min() == 255
    assert image[1, :3].max() == 0 and image[1, 5:].min() == 255
    assert image[2].max() == 0
