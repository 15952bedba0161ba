"""Results on object storage: a command works on a local copy that is uploaded while it runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bbam_ray.commands.listener import Listener
from bbam_ray.results.remote import address_of
from bbam_ray.results.storage import Storage


@contextmanager
def local_results(
    results: Path | str,
    studies: Iterable[str | Path | None],
    listener: Listener,
    *,
    upload: bool = True,
) -> Iterator[Path]:
    """The local folder of results that may be on object storage.

    Args:
        results: a folder, or a URI.
        studies: names of studies whose copies are brought up to date first; None is ignored.
        listener: receives a message with both places.
        upload: whether the block writes results.

    Yields:
        The folder; after the block everything in it has been uploaded.

    Raises:
        UsageError: no access.
        StorageError: the last upload failed; the local copy is complete.
    """
    uri = address_of(results)
    if uri is None:
        yield Path(results)
        return
    storage = Storage(uri)
    for name in studies:
        if name:
            storage.fetch(str(name))
    if not upload:
        yield storage.local
        return
    storage.check_writable()
    listener.message(f"results go to {storage.uri}, by way of {storage.local}")
    with storage:
        yield storage.local
