"""One line about how the label files were understood, from every command that reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bbam_ray.commands.listener import Listener

if TYPE_CHECKING:
    from bbam_ray.data import Samples


def report_reading(samples: Samples, listener: Listener) -> None:
    """Say how the labels were understood, and what is not used; nothing if there is only one way."""
    if samples.reading is not None:
        listener.message(samples.reading.summary)
        for note in samples.reading.notes:
            listener.warning(f"note: {note}")
    listener.notes(samples.notes)
