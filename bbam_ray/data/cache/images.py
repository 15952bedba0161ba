"""Decoded images of one size in one file that all processes of a node share."""

from __future__ import annotations

import hashlib
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageOps

from bbam_ray.data.cache.folder import (
    cache_dir,
    check_space,
    only_one,
    opened,
    whole_file,
)
from bbam_ray.data.cache.row_file import StoredRows, write_rows
from bbam_ray.data.formats.image_sources import ImageSource
from bbam_ray.errors import shown
from bbam_ray.files import remove_unfinished

MAX_PIXELS = 100_000_000  # more in one image is a mistake or an attack
_LARGE_PIXELS = 16_000_000  # of these, one at a time: a small file may hold 400 MB of pixels
_one_large = Lock()
_WAITING = 64  # images that may be decoded ahead of the one that is written
_DECODING = 2  # raise it when the code below gives other pixels for the same file

Listener = Callable[[str, int, int], None]  # data set, images done, images in all
_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


class UnreadableImageError(Exception):
    """The bytes are no whole image of a sensible size; the message says why."""


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Within it, ``listener`` hears of the images that are decoded."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


@contextmanager
def without_warnings() -> Iterator[None]:
    """Pillow warns of images that are large or a little damaged; here they are read or refused.

    Warnings belong to the process: it is entered before the threads that decode are started.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def read_image(source: Path | BinaryIO, side: int, channels: int = 3) -> np.ndarray:
    """One image as (channels, side, side) uint8, upright, resized without keeping its aspect ratio.

    Args:
        channels: 3 for colour, 1 for grey.

    Raises:
        UnreadableImageError: not an image, truncated, or larger than ``MAX_PIXELS``.
    """
    try:
        with Image.open(source) as image:
            if image.width * image.height > MAX_PIXELS:
                raise UnreadableImageError(f"{image.width} x {image.height} pixels are too many")
            image.draft("RGB", (side, side))
            large = image.width * image.height > _LARGE_PIXELS
            with _one_large if large else nullcontext():
                resized = _resized(image, side, "RGB" if channels == 3 else "L")
                image.close()  # its pixels go before those of the next large one come
    except UnreadableImageError:
        raise
    except Exception as error:  # damaged files make decoders fail in every way there is
        reason = "empty" if _is_empty(source) else shown(error, 200).split("<_io")[0]
        raise UnreadableImageError(reason.strip()) from None
    return np.asarray(resized).reshape(side, side, channels).transpose(2, 0, 1)


def _resized(image: Image.Image, side: int, mode: str) -> Image.Image:
    """Upright, in a mode, (side, side); copies no more than it must."""
    ImageOps.exif_transpose(image, in_place=True)
    coloured = image if image.mode == mode else image.convert(mode)
    return coloured.resize((side, side), Image.Resampling.BILINEAR)


def _is_empty(source: Path | BinaryIO) -> bool:
    if isinstance(source, Path):
        return source.is_file() and source.stat().st_size == 0
    return source.seek(0, 2) == 0


def cache_file(name: str, source: ImageSource, side: int) -> Path:
    """Where the decoded images of a source are kept: a changed image makes another name."""
    key = hashlib.sha256(f"{_DECODING}\n{source.state()}".encode()).hexdigest()[:20]
    return cache_dir() / name / f"{key}-{side}px.rows"


def cached_images(name: str, source: ImageSource, side: int) -> StoredRows:
    """The readable images of a source as (N, 3, side, side) uint8, decoded at the first call only.

    Of several processes that need them at once one decodes and the others wait. Unreadable images
    have no row; ``metadata["unreadable"]`` lists their positions in the source and what is wrong.
    """
    target = cache_file(name, source, side)
    if (found := opened(target)) is not None:
        return found
    with only_one(target.parent):
        if (found := opened(target)) is not None:  # another process was first
            return found
        remove_unfinished(target)
        check_space(
            target.parent, len(source) * 3 * side * side, "use a smaller --set image_size=N"
        )
        metadata: dict[str, Any] = {"unreadable": []}
        with whole_file(target) as temporary:
            rows = _decoded(name, source, side, metadata["unreadable"])
            write_rows(temporary, rows, (3, side, side), np.uint8, metadata)
    return StoredRows(target)


def _decoded(
    name: str, source: ImageSource, side: int, unreadable: list[tuple[int, str]]
) -> Iterator[np.ndarray]:
    """Images in order, decoded by as many threads as there are processors."""
    listener = _listener.get() or (lambda *_: None)

    def finish(number: int, image: Future[np.ndarray]) -> Iterator[np.ndarray]:
        try:
            yield image.result()
        except UnreadableImageError as error:
            unreadable.append((number, str(error)))
        listener(name, number + 1, len(source))

    with without_warnings(), ThreadPoolExecutor() as pool:
        begun: deque[tuple[int, Future[np.ndarray]]] = deque()
        try:
            for number, encoded in enumerate(source):
                begun.append((number, pool.submit(read_image, encoded, side)))
                if len(begun) > _WAITING:
                    yield from finish(*begun.popleft())
            while begun:
                yield from finish(*begun.popleft())
        finally:
            for _, image in begun:
                image.cancel()
