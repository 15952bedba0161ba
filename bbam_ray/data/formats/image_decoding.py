"""One encoded image as an array of a given size; damaged and huge images are rejected."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from threading import Lock
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from bbam_ray.errors import brief

MAX_PIXELS = 100_000_000  # more in one image is a mistake or an attack
_LARGE_PIXELS = 16_000_000  # larger images are decoded one at a time, to limit memory
DECODING_VERSION = 2  # increase it if the code below gives other pixels for the same file
_one_large = Lock()


class UnreadableImageError(Exception):
    """The bytes are not a complete image of an acceptable size; the message says why."""


@contextmanager
def without_warnings() -> Iterator[None]:
    """Silence Pillow's warnings about large or slightly damaged images; they are read or refused here.

    Warning filters belong to the process, so enter this before starting decoding threads.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def read_image(
    source: Path | BinaryIO, side: int, channels: int = 3, interpolation: str = "bilinear"
) -> np.ndarray:
    """Decode one image as (channels, side, side) uint8, upright, resized without keeping its aspect ratio.

    Args:
        source: file or open buffer.
        side: height and width of the result in pixels.
        channels: 3 for colour, 1 for grey.
        interpolation: "bilinear" or "bicubic".

    Raises:
        UnreadableImageError: not an image, truncated, or larger than ``MAX_PIXELS``.
    """
    try:
        with Image.open(source) as image:
            if image.width * image.height > MAX_PIXELS:
                raise UnreadableImageError(
                    f"{image.width} x {image.height} pixels exceed the limit of {MAX_PIXELS}"
                )
            image.draft("RGB", (side, side))
            large = image.width * image.height > _LARGE_PIXELS
            with _one_large if large else nullcontext():
                resized = _resized(image, side, "RGB" if channels == 3 else "L", interpolation)
                image.close()  # free its pixels before the next large image is decoded
    except UnreadableImageError:
        raise
    except Exception as error:  # damaged files make decoders raise anything
        reason = "empty" if _is_empty(source) else brief(error, 200).split("<_io")[0]
        raise UnreadableImageError(reason.strip()) from None
    return np.asarray(resized).reshape(side, side, channels).transpose(2, 0, 1)


def _resized(image: Image.Image, side: int, mode: str, interpolation: str) -> Image.Image:
    """The image upright, in a color mode, of (side, side) pixels, with as few copies as possible."""
    ImageOps.exif_transpose(image, in_place=True)
    converted = image if image.mode == mode else image.convert(mode)
    return converted.resize((side, side), Image.Resampling[interpolation.upper()])


def _is_empty(source: Path | BinaryIO) -> bool:
    if isinstance(source, Path):
        return source.is_file() and source.stat().st_size == 0
    return source.seek(0, 2) == 0
