"""Places that may be on object storage: what a URI is, and a copy of what it names on this disk."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from bbam_ray.errors import UsageError
from bbam_ray.results.redaction import redacted

if TYPE_CHECKING:
    from bbam_ray.results.storage import Storage


def address_of(place: Path | str) -> str | None:
    """The URI that was meant by a path such as ``s3:/bucket/results`` (pathlib takes one slash away)."""
    found = re.fullmatch(r"([a-z][a-z0-9+]+):/{1,2}([^/].*)", str(place))
    return f"{found[1]}://{found[2].rstrip('/')}" if found else None


def open_study(uri: str) -> tuple[Storage, Path]:
    """The storage of a study, for reading, and the up-to-date copy of what a URI names.

    Args:
        uri: of a study, or of a folder at most three levels deep in one.

    Raises:
        UsageError: no access, or no study there.
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


def local_copy(place: Path | str) -> Path:
    """A study, or a folder in one, on this disk: the place itself, or the copy of a remote one.

    Raises:
        UsageError: no access, or no study there.
    """
    uri = address_of(place)
    return Path(place) if uri is None else open_study(uri)[1]


def check_local(flag: str, place: Path) -> None:
    """Raise a UsageError for a URI where only a file or folder of this machine will do."""
    if (uri := address_of(place)) is not None:
        raise UsageError(
            f"{flag} {redacted(uri)}: is written on this machine; give a path, and copy it there"
        )
