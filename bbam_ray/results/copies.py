"""A study's copy on this disk: whose it is, what has been uploaded of it, and in which order."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

STATE = ".storage.json"  # whose copy a study's folder is, and what has been uploaded of it
LAST = ("history.parquet", "confirm.parquet", "trials.parquet", "study.json")
_ONLY_HERE = Path("checkpoints") / "trials"  # large, and of use only until their trial ends


def copies_dir() -> Path:
    """Where the copies of this machine are."""
    base = os.environ.get("BBAM_RAY_CACHE") or "~/.cache/bbam_ray"
    return Path(base).expanduser() / "results"


def read_state(copy: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((copy / STATE).read_text(encoding="utf-8"))
    return found


def keep_state(copy: Path, state: dict[str, Any]) -> None:
    temporary = copy / f"{STATE}.new"
    temporary.write_text(json.dumps(state), encoding="utf-8")
    temporary.replace(copy / STATE)


def turn(name: str) -> tuple[int, str]:
    """Place of a file in the order in which files are uploaded."""
    return (LAST.index(name) if name in LAST else -1, name)


def stamps(folder: Path) -> dict[str, list[int]]:
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
