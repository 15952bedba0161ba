"""Small image files that declare or contain more pixels than fit into memory."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
from trees import images

from bbam_ray.data.datasets.images import Images, ImagesOptions
from bbam_ray.data.formats.image_decoding import UnreadableImageError, read_image
from bbam_ray.data.prediction.inputs import find_chunks
from bbam_ray.errors import UsageError

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BBAM_RAY_CACHE", str(tmp_path / "cache"))


def bomb(width: int, height: int, rows: int) -> bytes:
    """A PNG with transparency that declares a size and contains ``rows`` rows of zeros."""

    def chunk(name: bytes, content: bytes) -> bytes:
        checked = name + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    packer, line = zlib.compressobj(1), bytes(1 + 4 * width)
    body = b"".join(packer.compress(line) for _ in range(rows)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    parts = chunk(b"IHDR", head), chunk(b"IDAT", body), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


MEASURED = """
import json, resource, sys
from pathlib import Path
from bbam_ray.data.cache.images import cached_images
from bbam_ray.data.formats.image_sources import ImageFiles
paths = sorted(Path(sys.argv[1]).glob("*.png"))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
metadata = cached_images("x", ImageFiles(paths, Path(sys.argv[1])), 32).metadata
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([(after - before) / 1024, metadata["unreadable"]]))
"""


def measured(folder: Path) -> tuple[float, list[Any]]:
    """MiB of memory that decoding a folder takes, and the unreadable images."""
    ended = subprocess.run(
        [sys.executable, "-c", MEASURED, str(folder)], cwd=ROOT, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    grown, unreadable = json.loads(ended.stdout)
    return grown, unreadable


def test_images_that_declare_billions_of_pixels_take_no_memory(tmp_path: Path) -> None:
    content = bomb(60_000, 60_000, rows=2)
    assert len(content) < 10_000
    for number in range(8):
        (tmp_path / f"{number}.png").write_bytes(content)
    grown, unreadable = measured(tmp_path)
    assert len(unreadable) == 8 and "3600000000 pixels" in str(unreadable[0]), unreadable
    assert grown < 100
    with pytest.raises(UnreadableImageError):
        read_image(tmp_path / "0.png", 24, 1)
    (chunk,) = find_chunks(tmp_path, (3, 24, 24), ["a"])
    (batch,) = chunk.batches(8)
    assert len(batch.problems) == 8 and None not in batch.problems  # of ``predict``


def test_the_largest_accepted_images_are_decoded_one_at_a_time(tmp_path: Path) -> None:
    """Decoded by all threads at once, they would take gigabytes."""
    content = bomb(9_000, 9_000, rows=9_000)
    assert len(content) < 2_000_000
    for number in range(2):
        (tmp_path / f"{number}.png").write_bytes(content)
    grown, unreadable = measured(tmp_path)
    assert unreadable == [] and grown < 1100


def test_a_folder_with_a_huge_image_follows_the_option_unreadable(tmp_path: Path) -> None:
    root = images(tmp_path / "own", count=20)
    (root / "unlabeled" / "bomb.png").write_bytes(bomb(60_000, 60_000, rows=2))
    stop = ImagesOptions(image_size=32)
    with pytest.raises(UsageError, match=r"bomb\.png.*unreadable=skip"):
        Images().load(stop, root, "train")
    skip = ImagesOptions(image_size=32, unreadable="skip")
    names = Images().load(skip, root, "train").names
    assert names is not None and not [name for name in names if "bomb" in name] and names
