"""Decoded images of one size in one memory-mapped uint8 file that all processes share."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from bbam_ray.data.dataset import cache_dir, whole_file
from bbam_ray.errors import UsageError


def read_image(path: Path, side: int) -> np.ndarray:
    """One image as (3, side, side) uint8, resized without keeping its aspect ratio."""
    try:
        with Image.open(path) as image:
            image.draft("RGB", (side, side))
            resized = image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise UsageError(f"{path}: not a readable image ({error}); replace or remove it") from None
    return np.asarray(resized).transpose(2, 0, 1)


def files_state(paths: Iterable[Path]) -> str:
    """Hexadecimal digest of paths, sizes and times: it changes when a file does."""
    digest = hashlib.sha256()
    for path in paths:
        status = path.stat()
        digest.update(f"{path.resolve()}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def cached_images(name: str, paths: Sequence[Path], side: int) -> np.ndarray:
    """Memory-mapped (N, 3, side, side) uint8 images, decoded at the first call only.

    The file is named after the paths, sizes and times of the images, so a changed folder makes a new
    one. Two processes that build it at once do the work twice and agree on the result.
    """
    target = cache_dir() / name / f"{files_state(paths)[:20]}-{side}px.npy"
    if not target.exists():
        with whole_file(target) as temporary:
            store = np.lib.format.open_memmap(
                temporary, mode="w+", dtype=np.uint8, shape=(len(paths), 3, side, side)
            )
            with ThreadPoolExecutor() as pool:
                decoded = pool.map(lambda path: read_image(path, side), paths)
                for row, image in enumerate(decoded):
                    store[row] = image
            store.flush()
    images: np.ndarray = np.load(target, mmap_mode="r")
    return images
