"""Files of a study: each appears whole or not at all, and its version before stays beside it."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

PREVIOUS = ".previous"  # folder in a study's folder


def write_whole(path: Path, write: Callable[[Path], object], *, keep: bool = False) -> None:
    """Let ``write`` fill a temporary file, force it to the disk and rename it to ``path``.

    Args:
        keep: let the version that is replaced stay in the folder ``.previous``.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(temporary)
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        if keep:
            _keep_previous(path)
        temporary.replace(path)
    finally:
        with suppress(OSError):  # of a file system that nothing can be removed from either
            temporary.unlink(missing_ok=True)


def _keep_previous(path: Path) -> None:
    """Link a version that is about to be replaced; a file system without links keeps none."""
    if not path.exists():
        return
    kept = path.parent / PREVIOUS / path.name
    new = kept.with_name(f".{path.name}.{os.getpid()}")
    with suppress(OSError):
        kept.parent.mkdir(exist_ok=True)
        new.unlink(missing_ok=True)
        new.hardlink_to(path)
        new.replace(kept)
        new.unlink(missing_ok=True)  # a link to what is kept already is not renamed


def write_text(path: Path, text: str) -> None:
    write_whole(path, lambda temporary: _write_text(temporary, text))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Standard JSON: an infinite or NaN number becomes the text "inf", "-inf" or "nan"."""
    write_text(
        path, json.dumps(standard_values(content), indent=2, allow_nan=False, default=str) + "\n"
    )


def standard_values(value: Any) -> Any:
    """A copy that standard JSON can hold, equal to what reading the JSON file back gives."""
    if isinstance(value, Mapping):
        return {str(key): standard_values(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [standard_values(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
