"""What a command reports while it works, to the command line or to a caller in Python."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class Listener:
    """Receives progress and messages of a command; this base class ignores them."""

    def progress(self, what: str, done: int, total: int) -> None:
        """``done`` of ``total`` samples, images or bytes of the step ``what`` are finished."""

    def message(self, text: str) -> None:
        """One line for the user."""

    def warning(self, text: str) -> None:
        """One line that is shown even to users who do not watch progress."""

    def error(self, text: str) -> None:
        """One line about something that makes the command fail, or a part of its work."""

    def notes(self, texts: Iterable[str]) -> None:
        """What reading the data ignored, or took in a way that is not obvious (``Samples.notes``)."""
        for text in texts:
            self.message(f"read: {text}")


SILENT = Listener()


@contextmanager
def reports_decoding(listener: Listener) -> Iterator[None]:
    """Report the images that are decoded in the block; images in the cache are not decoded again."""
    from bbam_ray.data.cache.images import listening  # NumPy and Pillow take their time to load

    def decoded(name: str, done: int, total: int) -> None:
        listener.progress(f"decoding the images of data set {name}", done, total)

    with listening(decoded):
        yield
