"""Paths that may be URIs on object storage, and their local copies."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from bbam_ray.errors import UsageError
from bbam_ray.results.redaction import redacted

if TYPE_CHECKING:
    from bbam_ray.results.storage import Storage


def address_of(path: Path | str) -> str | None:
    """The URI in a path such as ``s3:/bucket/results`` (pathlib removes a slash); None if it is local."""
    match = re.fullmatch(r"([a-z][a-z0-9+]+):/{1,2}([^/].*)", str(path))
    return f"{match[1]}://{match[2].rstrip('/')}" if match else None


def open_study(uri: str) -> tuple[Storage, Path]:
    """Open the storage of a study for reading, and update its local copy.

    Args:
        uri: of a study, or of a folder at most three levels deep in one.

    Returns:
        The storage, and the local copy of the folder that the URI names.

    Raises:
        UsageError: no access, or no study.
    """
    from bbam_ray.results.storage import Storage

    parts = uri.split("/")
    for depth in range(4):
        root, rest = parts[: len(parts) - depth - 2], parts[len(parts) - depth - 2 :]
        if len(root) < 3:
            break
        storage = Storage("/".join(root), reads=True)
        storage.fetch(rest[1])
        if (storage.local / rest[0] / rest[1] / "study.json").is_file():
            return storage, storage.local.joinpath(*rest)
    raise UsageError(f"{redacted(uri)}: there is no study; give <results>/<data set>/<study>")


def local_copy(path: Path | str) -> Path:
    """A local folder for a path or URI of a study (or of a folder in one); a remote study is downloaded.

    Raises:
        UsageError: no access, or no study.
    """
    uri = address_of(path)
    return Path(path) if uri is None else open_study(uri)[1]


def check_local(flag: str, path: Path) -> None:
    """Raise a UsageError if the value of a flag is a URI, but must be a local path."""
    if (uri := address_of(path)) is not None:
        raise UsageError(
            f"{flag} {redacted(uri)}: must be a local path; give one, and copy the result to the storage"
        )
