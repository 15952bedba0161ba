"""Exclusive use of a file or folder that several processes may want to write at once."""

from __future__ import annotations

import os
from pathlib import Path

from bbam_ray import files
from bbam_ray.errors import UsageError


def lock(path: Path, descriptor: int) -> None:
    """Lock an open file or folder until its descriptor is closed; refuse if another process has it."""
    try:
        files.lock(descriptor)
    except BlockingIOError:
        raise UsageError(
            f"{path} is being written by another process; wait for it, or choose another folder"
        ) from None
    if not still_there(path, descriptor):  # opened just before its owner renamed or removed it
        raise UsageError(f"{path} was just finished by another process; run the command again")


def still_there(path: Path, descriptor: int) -> bool:
    """Whether the path still leads to what was opened."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
