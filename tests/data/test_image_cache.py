"""Decoded images are kept in one file: decoded once, by one process, never stale, never half."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import Resize

from bbam_ray.data.cache import images as image_cache
from bbam_ray.data.cache.images import cached_images, listening
from bbam_ray.data.formats import image_decoding
from bbam_ray.data.formats.image_decoding import UnreadableImageError, read_image
from bbam_ray.data.formats.image_sources import ImageFiles
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
def source(paths: list[Path], tmp_path: Path) -> ImageFiles:
    return ImageFiles(paths, tmp_path)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The images that were really decoded, in no particular order."""
    seen: list[Path] = []

    def counted(path: Path, side: int, *form: Any) -> np.ndarray:
        seen.append(path)
        return read_image(path, side, *form)

    monkeypatch.setattr(image_cache, "read_image", counted)
    return seen


def stored(cache: Path) -> list[Path]:
    return sorted(cache.rglob("*.rows"))


def test_the_second_call_decodes_nothing(
    source: ImageFiles, decoded: list[Path], cache: Path
) -> None:
    first = cached_images("set", source, 8)
    assert sorted(decoded) == source.paths
    second = cached_images("set", source, 8)
    assert len(decoded) == 5 and len(stored(cache)) == 1
    np.testing.assert_array_equal(np.asarray(first), np.asarray(second))
    assert first.shape == (5, 3, 8, 8) and first.dtype == np.uint8
    brightness = first[:][:, 0, 0, 0]
    np.testing.assert_array_equal(brightness, [0, 40, 80, 120, 160])  # in the order asked for


def test_a_changed_image_makes_a_new_file(
    source: ImageFiles, decoded: list[Path], cache: Path
) -> None:
    cached_images("set", source, 8)
    Image.new("RGB", (50, 50), (255, 255, 255)).save(source.paths[2])
    changed = cached_images("set", ImageFiles(source.paths, source.root), 8)
    assert len(decoded) == 10 and len(stored(cache)) == 2
    assert changed[2].min() == 255


def test_time_order_and_size_are_part_of_the_name(
    paths: list[Path], cache: Path, tmp_path: Path
) -> None:
    cached_images("set", ImageFiles(paths, tmp_path), 8)
    status = paths[0].stat()
    os.utime(paths[0], ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))
    cached_images("set", ImageFiles(paths, tmp_path), 8)
    assert len(stored(cache)) == 2
    turned = cached_images("set", ImageFiles(paths[::-1], tmp_path), 8)
    assert turned[0][0, 0, 0] == 160 and len(stored(cache)) == 3
    assert cached_images("set", ImageFiles(paths, tmp_path), 12).shape == (5, 3, 12, 12)
    assert len(stored(cache)) == 4


def test_what_a_killed_process_left_is_removed(source: ImageFiles, cache: Path) -> None:
    expected = np.asarray(cached_images("set", source, 8))
    (whole,) = stored(cache)
    torn = whole.with_name(f".{whole.name}.4711")
    torn.write_bytes(whole.read_bytes()[:90])
    whole.unlink()
    np.testing.assert_array_equal(np.asarray(cached_images("set", source, 8)), expected)
    assert not torn.exists()


def test_a_damaged_file_is_made_anew(source: ImageFiles, cache: Path, decoded: list[Path]) -> None:
    expected = np.asarray(cached_images("set", source, 8))
    (whole,) = stored(cache)
    whole.write_bytes(whole.read_bytes()[:-3])
    np.testing.assert_array_equal(np.asarray(cached_images("set", source, 8)), expected)
    assert len(decoded) == 10


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"\x89PNG but no more", "identify"), (b"", "empty"), (b"plain text", "identify")],
)
def test_an_unreadable_image_has_no_row_and_is_listed(
    content: bytes, reason: str, source: ImageFiles
) -> None:
    source.paths[3].write_bytes(content)
    images = cached_images("set", source, 8)
    ((row, why),) = images.metadata["unreadable"]
    assert row == 3 and reason in why and len(images) == 4
    assert images[3].min() == 160  # the fifth moved up: no black image in its place


def test_a_truncated_image_is_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:-9000])
    with pytest.raises(UnreadableImageError, match="truncated"):
        read_image(path, 32)


def test_a_bomb_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bomb.png"
    Image.new("1", (400, 400)).save(path)
    monkeypatch.setattr(image_decoding, "MAX_PIXELS", 159_999)
    monkeypatch.setattr(Image.Image, "load", None)
    with pytest.raises(UnreadableImageError, match="400 x 400 pixels exceed the limit"):
        read_image(path, 32)


def test_progress_is_told(source: ImageFiles) -> None:
    heard: list[tuple[str, int, int]] = []
    with listening(lambda *event: heard.append(event)):
        cached_images("set", source, 8)
        cached_images("set", source, 8)
    assert heard == [("set", done, 5) for done in range(1, 6)]


def test_a_full_disk_is_refused_before_anything_is_decoded(
    source: ImageFiles, decoded: list[Path], cache: Path
) -> None:
    cache.mkdir()
    with pytest.raises(UsageError, match=r"needs .* GB are free; .*BBAM_RAY_CACHE .* image_size"):
        cached_images("set", source, 10**7)
    assert not decoded and not stored(cache)


def test_a_cache_that_cannot_be_written_is_named(source: ImageFiles, cache: Path) -> None:
    cache.write_text("a file where a folder should be")
    with pytest.raises(UsageError, match=r"cannot write to .*cache/set: .* BBAM_RAY_CACHE"):
        cached_images("set", source, 8)


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "CMYK", "LA", "I;16"])
def test_images_of_every_mode_become_three_channels(mode: str, tmp_path: Path) -> None:
    path = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    if mode == "I;16":
        Image.fromarray(np.full((14, 10), 65535, dtype=np.uint16)).save(path)
    else:
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


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (224, 224)], ids=str)
@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_a_stored_image_is_the_whole_image_as_torchvision_resizes_it(
    kind: str, size: tuple[int, int], tmp_path: Path
) -> None:
    """The published protocol: squashed to the square, nothing is cropped."""
    small = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    path = tmp_path / f"image.{kind}"
    Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(path)
    with Image.open(path) as image:
        expected = np.asarray(Resize((224, 224))(image.convert("RGB")))
    np.testing.assert_array_equal(read_image(path, 224), expected.transpose(2, 0, 1))


def test_a_camera_that_was_turned_gives_an_upright_image(tmp_path: Path) -> None:
    pixels = np.zeros((40, 40, 3), dtype=np.uint8)
    pixels[:, :20] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise: the left side comes up
    Image.fromarray(pixels).save(tmp_path / "image.jpg", exif=exif, quality=95)
    image = read_image(tmp_path / "image.jpg", 8)
    assert image[0, :3].min() > 250 and image[0, 5:].max() < 5


BUILDER = """
import sys, time
from pathlib import Path
from typing import Any
from bbam_ray.data.cache import images as image_cache
from bbam_ray.data.formats.image_sources import ImageFiles

root, log, pause = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
read = image_cache.read_image

def slow(path, side, *form):
    with log.open("a") as handle:
        handle.write(path.name + "\\n")
    time.sleep(pause)
    return read(path, side)

image_cache.read_image = slow
images = image_cache.cached_images("set", ImageFiles(sorted(root.glob("*.png")), root), 8)
print(images[:].sum())
"""


def builder(root: Path, log: Path, pause: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", BUILDER, str(root), str(log), str(pause)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ)


def test_of_two_builders_one_decodes_and_the_other_waits(
    source: ImageFiles, tmp_path: Path, cache: Path
) -> None:
    log = tmp_path / "log"
    both = [builder(tmp_path, log, 0.2) for _ in range(2)]
    sums = {process.communicate(timeout=60)[0] for process in both}
    assert [process.returncode for process in both] == [0, 0] and len(sums) == 1
    assert sorted(log.read_text().split()) == [path.name for path in source.paths]
    assert len(stored(cache)) == 1


def test_a_killed_builder_leaves_nothing_and_the_next_one_finishes(
    source: ImageFiles, tmp_path: Path, cache: Path
) -> None:
    log = tmp_path / "log"
    first = builder(tmp_path, log, 30)
    deadline = time.monotonic() + 60
    while not log.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert not stored(cache)
    images = cached_images("set", source, 8)
    assert len(images) == 5 and [path.name for path in cache.glob("set/.*rows*")] == []
