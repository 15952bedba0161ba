"""Places that may be on object storage: what a URI is, and a copy of what it names on this disk."""

from __future__ import annotations

import re
from pathlib import Path

from bbam_ray.errors import UsageError


def address_of(place: Path | str) -> str | None:
    """The URI that was meant by a path such as ``s3:/bucket/results`` (pathlib takes one slash away)."""
    found = re.fullmatch(r"([a-z][a-z0-9+]+):/{1,2}([^/].*)", str(place))
    return f"{found[1]}://{found[2].rstrip('/')}" if found else None


def local_copy(place: Path | str) -> Path:
    """A study, or a folder in one, on this disk: the place itself, or an up-to-date copy of a remote one.

    Raises:
        UsageError: no access, or no study there.
    """
    from bbam_ray.results.storage import Storage

    uri = address_of(place)
    if uri is None:
        return Path(place)
    parts = uri.split("/")
    for depth in range(4):
        root, rest = parts[: len(parts) - depth - 2], parts[len(parts) - depth - 2 :]
        if len(root) < 3:
            break
        storage = Storage("/".join(root), reads=True)
        storage.fetch(rest[1])
        if (storage.local / rest[0] / rest[1] / "study.json").is_file():
            return storage.local.joinpath(*rest)
    raise UsageError(f"{uri}: there is no study; give <results>/<data set>/<study>")
