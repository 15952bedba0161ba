"""State of the local copy of a remote study: owner ID, synchronized files, order of uploads."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from bbam_ray.documents import parse_json
from bbam_ray.errors import UsageError, brief
from bbam_ray.files import write_text
from bbam_ray.results.parts import FOLDER

STATE = ".storage.json"  # in the folder of a study: owner ID, and the files that were synchronized
_TABLES = ("labels", "folds", "history", "confirm", "trials")
LAST = (*(f"{name}.parquet" for name in _TABLES), "study.json")
_NOT_UPLOADED = Path("checkpoints") / "trials"  # large, and deleted when their trial ends


def copies_dir() -> Path:
    """Folder of the local copies on this machine."""
    base = os.environ.get("BBAM_RAY_CACHE") or "~/.cache/bbam_ray"
    return Path(base).expanduser() / "results"


def read_state(copy: Path) -> dict[str, Any]:
    """Read the state of a local copy.

    Returns:
        ``owner``: ID of this copy. ``after``: ID of the copy that it was downloaded from, or None.
        ``files`` and ``there``: size and time of each local and each remote file.

    Raises:
        UsageError: damaged.
    """
    path = copy / STATE
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
        is_valid = (
            isinstance(content["owner"], str)
            and isinstance(content["after"], (str, type(None)))
            and all(map(_is_listing, (content["files"], content["there"])))
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = error.strerror if isinstance(error, OSError) else brief(error)
        raise _damaged(path, reason) from None
    if not is_valid:
        raise _damaged(path, "an entry of another type")
    state: dict[str, Any] = content
    return state


def _damaged(path: Path, reason: str | None) -> UsageError:
    return UsageError(
        f"{path}: cannot be read ({reason}); save the new files of this folder, and remove the folder"
    )


def _is_listing(files: Any) -> bool:
    """Whether this maps relative file names to two integers each."""
    return isinstance(files, dict) and all(
        isinstance(stamp, list)
        and [type(number) for number in stamp] == [int, int]
        and not (name.startswith("/") or "\0" in name or {"", ".", ".."} & set(name.split("/")))
        for name, stamp in files.items()
    )


def read_owner(content: bytes, where: str) -> str:
    """Read the ID of the copy that was uploaded last.

    Args:
        content: of the remote file.
        where: its path, for the message.

    Raises:
        UsageError: damaged.
    """
    try:
        owner = parse_json(content.decode("utf-8"))["owner"]
    except (ValueError, KeyError, TypeError):
        owner = None
    if not isinstance(owner, str):
        raise UsageError(f"{where}: has no owner ID of a study; remove this file")
    return owner


def write_state(copy: Path, state: dict[str, Any]) -> None:
    """Write the state of a local copy."""
    write_text(copy / STATE, json.dumps(state))


def upload_order(name: str) -> tuple[int, int, str]:
    """Sort key of a file in the order of uploads: the files of tables come late, then their parts.

    A trial must not arrive without its history, so trials come after everything that belongs to them. The
    file of a table comes before its parts: it may contain parts that were removed before their upload.
    """
    table = name.split("/")[1] if name.startswith(f"{FOLDER}/") else ""
    if name == LAST[-1]:
        return (3, 0, name)
    if name in LAST:
        return (1, LAST.index(name), name)
    if table in _TABLES:
        return (2, _TABLES.index(table), name)
    return (0, 0, name)


def needs_others(name: str) -> bool:
    """Whether a file needs other files of the same moment: a trial needs its history, the record both."""
    return name in LAST[-2:] or (is_part(name) and name.split("/")[1] == _TABLES[-1])


def is_part(name: str) -> bool:
    """Whether a file is a part of a table; a study removes parts that it has merged."""
    return upload_order(name)[0] == 2


def file_stats(folder: Path) -> dict[str, list[int]]:
    """Size and time of every finished file; files and folders that start with a dot are unfinished."""
    stats = {}
    for path in _paths(folder):
        name = path.relative_to(folder)
        if any(part.startswith(".") for part in name.parts) or name.is_relative_to(_NOT_UPLOADED):
            continue
        with suppress(FileNotFoundError):
            if path.is_file():
                stats[name.as_posix()] = stamp(path.stat())
    return stats


def stamp(status: os.stat_result) -> list[int]:
    """Size and time of a file, which change with its content."""
    return [status.st_size, status.st_mtime_ns]


def _paths(folder: Path) -> Iterator[Path]:
    """All files and folders: trials before what they need, parts before the files that contain them.

    So a study that writes meanwhile lets no trial appear without its history, and no part disappear before
    its rows are in a file.
    """
    for table in reversed(_TABLES):
        yield from (folder / FOLDER / table).glob("*")
    yield from (folder / name for name in reversed(LAST))
    for path in folder.rglob("*"):
        if path.parent.parent != folder / FOLDER and path.name not in LAST:
            yield path
