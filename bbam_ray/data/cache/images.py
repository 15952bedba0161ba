"""Decoded images of a data set, of one size, in one file that all processes of a node share."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from bbam_ray.data.cache.folder import (
    cache_dir,
    check_space,
    only_one,
    opened,
    whole_file,
)
from bbam_ray.data.cache.row_file import StoredRows, write_rows
from bbam_ray.data.formats.image_decoding import (
    DECODING_VERSION,
    UnreadableImageError,
    conversion,
    darkness,
    read_image,
    without_warnings,
)
from bbam_ray.data.formats.image_range import AUTO
from bbam_ray.data.formats.image_sources import ImageSource
from bbam_ray.files import remove_unfinished

_DECODE_AHEAD = 64  # images that may be decoded before the one that is written next

Listener = Callable[[str, int, int], None]  # data set, images done, images in total
_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Report progress of decoding to ``listener`` within the block."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def cache_file(name: str, source: ImageSource, side: int, image_range: str = AUTO) -> Path:
    """Path of the decoded images of a source; it changes with an image and with the rules of decoding."""
    rules = f"{DECODING_VERSION} {image_range}"
    key = hashlib.sha256(f"{rules}\n{source.state()}".encode()).hexdigest()[:20]
    return cache_dir() / name / f"{key}-{side}px.rows"


def cached_images(name: str, source: ImageSource, side: int, image_range: str = AUTO) -> StoredRows:
    """The readable images of a source as (N, 3, side, side) uint8, decoded at the first call only.

    If several processes need them at once, one decodes and the others wait. Unreadable images have no
    row; ``metadata["unreadable"]`` lists their positions in the source and the reasons, and
    ``metadata["notes"]`` what was done to others (see ``conversion``), with their number and the position
    of the first.
    """
    target = cache_file(name, source, side, image_range)
    if (rows := opened(target)) is not None:
        return rows
    with only_one(target.parent):
        if (rows := opened(target)) is not None:  # another process was first
            return rows
        remove_unfinished(target)
        check_space(
            target.parent, len(source) * 3 * side * side, "use a smaller --set image_size=N"
        )
        metadata: dict[str, Any] = {"unreadable": [], "notes": {}}
        with whole_file(target) as temporary:
            images = _decoded(name, source, (side, image_range), metadata)
            write_rows(temporary, images, (3, side, side), np.uint8, metadata)
    return StoredRows(target)


def _decoded(
    name: str, source: ImageSource, rules: tuple[int, str], metadata: dict[str, Any]
) -> Iterator[np.ndarray]:
    """Images in order, decoded by as many threads as there are processors; fills ``metadata``."""
    listener = _listener.get() or (lambda *_: None)

    def finish(number: int, image: Future[tuple[np.ndarray, str]]) -> Iterator[np.ndarray]:
        try:
            pixels, note = image.result()
            if note:
                count, first = metadata["notes"].get(note, (0, number))
                metadata["notes"][note] = (count + 1, first)
            yield pixels
        except UnreadableImageError as error:
            metadata["unreadable"].append((number, str(error)))
        listener(name, number + 1, len(source))

    with without_warnings(), ThreadPoolExecutor() as pool:
        begun: deque[tuple[int, Future[tuple[np.ndarray, str]]]] = deque()
        try:
            for number, encoded in enumerate(source):
                begun.append((number, pool.submit(_read, encoded, *rules)))
                if len(begun) > _DECODE_AHEAD:
                    yield from finish(*begun.popleft())
            while begun:
                yield from finish(*begun.popleft())
        finally:
            for _, image in begun:
                image.cancel()


def _read(encoded: Path | BinaryIO, side: int, image_range: str) -> tuple[np.ndarray, str]:
    """One decoded image, and what was done to its values."""
    note = conversion(encoded, image_range)
    other_range: dict[str, Any] = {} if image_range == AUTO else {"image_range": image_range}
    pixels = read_image(encoded, side, **other_range)
    return pixels, note + darkness(note, pixels)
