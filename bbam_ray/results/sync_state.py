"""A study's copy on this disk: whose it is, what has been uploaded of it, and in which order."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from bbam_ray.documents import parse_json
from bbam_ray.errors import UsageError, shown

STATE = ".storage.json"  # whose copy a study's folder is, and what has been uploaded of it
LAST = ("history.parquet", "confirm.parquet", "trials.parquet", "study.json")
_ONLY_HERE = Path("checkpoints") / "trials"  # large, and of use only until their trial ends


def copies_dir() -> Path:
    """Where the copies of this machine are."""
    base = os.environ.get("BBAM_RAY_CACHE") or "~/.cache/bbam_ray"
    return Path(base).expanduser() / "results"


def read_state(copy: Path) -> dict[str, Any]:
    """Whose copy it is (``owner``, ``after``), and ``files`` here and ``there`` with size and time.

    Raises:
        UsageError: damaged.
    """
    path = copy / STATE
    try:
        found = parse_json(path.read_text(encoding="utf-8"))
        whole = (
            isinstance(found["owner"], str)
            and isinstance(found["after"], (str, type(None)))
            and all(map(_is_listing, (found["files"], found["there"])))
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = error.strerror if isinstance(error, OSError) else shown(error)
        raise _damaged(path, reason) from None
    if not whole:
        raise _damaged(path, "an entry of another kind")
    state: dict[str, Any] = found
    return state


def _damaged(path: Path, reason: str | None) -> UsageError:
    return UsageError(
        f"{path}: cannot be read ({reason}); save what is new in this folder, and remove the folder"
    )


def _is_listing(files: Any) -> bool:
    """Whether these are names of files below a folder, each with two numbers."""
    return isinstance(files, dict) and all(
        isinstance(stamp, list)
        and [type(number) for number in stamp] == [int, int]
        and not (name.startswith("/") or "\0" in name or {"", ".", ".."} & set(name.split("/")))
        for name, stamp in files.items()
    )


def read_owner(content: bytes, where: str) -> str:
    """Whose copy was uploaded last, as it is written in a storage.

    Raises:
        UsageError: damaged.
    """
    try:
        found = parse_json(content.decode("utf-8"))["owner"]
    except (ValueError, KeyError, TypeError):
        found = None
    if not isinstance(found, str):
        raise UsageError(f"{where}: does not say whose study this is; remove this file")
    return found


def keep_state(copy: Path, state: dict[str, Any]) -> None:
    temporary = copy / f"{STATE}.new"
    temporary.write_text(json.dumps(state), encoding="utf-8")
    temporary.replace(copy / STATE)


def upload_order(name: str) -> tuple[int, str]:
    """Place of a file in the order in which files are uploaded."""
    return (LAST.index(name) if name in LAST else -1, name)


def file_stats(folder: Path) -> dict[str, list[int]]:
    """Size and time of every finished file; those whose name begins with a dot are not finished."""
    found = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        if any(part.startswith(".") for part in name.parts) or name.is_relative_to(_ONLY_HERE):
            continue
        with suppress(FileNotFoundError):
            if path.is_file():
                status = path.stat()
                found[name.as_posix()] = [status.st_size, status.st_mtime_ns]
    return found
