"""Tables of a folder whose names say the part of their rows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from bbam_ray.errors import UsageError, brief

PARTS = ("train", "validation", "test", "unlabeled")
_NAMES = {
    "train": re.compile(r"train.*", re.DOTALL),
    "validation": re.compile(r"(val|valid|validation|dev)(?![a-z]).*", re.IGNORECASE | re.DOTALL),
    "test": re.compile(r"test.*", re.DOTALL),
    "unlabeled": re.compile(r"unlabell?ed.*", re.DOTALL),
}
_PARTITION = re.compile(r"([\w-]+)=(.+)")
_SPLIT_COLUMNS = ("split", "part", "subset", "set")
_SHOWN = 3


def part_of_name(name: str) -> str | None:
    """The part that the name of a file or folder says; None if it says none."""
    return next((part for part, pattern in _NAMES.items() if pattern.fullmatch(name)), None)


def part_of_file(path: Path) -> str | None:
    """The part of a file, by its name or by its folder ``split=train``."""
    partition = _PARTITION.fullmatch(path.parent.name)
    return part_of_name(partition[2]) if partition else part_of_name(path.name)


def part_files(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """The tables of a folder whose names say a part, by part and name.

    Folders ``split=train`` and so on, as Hive and Spark write partitions, may hold the tables instead.

    Args:
        folder: to search.
        suffixes: of tables.

    Raises:
        UsageError: folders of partitions by another column, or of an unknown part.
    """
    files = [path for path in _files(folder) if path.suffix in suffixes and part_of_name(path.name)]
    for inner in sorted(folder.iterdir()):
        partition = _PARTITION.fullmatch(inner.name) if inner.is_dir() else None
        tables = [path for path in _files(inner) if path.suffix in suffixes] if partition else []
        if not tables or partition is None:
            continue
        if partition[1] not in _SPLIT_COLUMNS or part_of_name(partition[2]) is None:
            raise UsageError(
                f"{folder}: the folder '{brief(inner.name)}' is a partition that names no part; "
                "expected "
                "split=train, split=validation, split=test or split=unlabeled, or a single "
                "Parquet file"
            )
        files += tables
    return sorted(files, key=lambda path: (PARTS.index(str(part_of_file(path))), path))


def _files(folder: Path) -> list[Path]:
    """Files of a folder by name, without hidden ones."""
    return sorted(
        path
        for path in folder.iterdir()
        if not path.name.startswith((".", "_")) and not path.is_dir()
    )


def unused_tables(folder: Path, used: Sequence[Path], suffixes: Sequence[str]) -> list[str]:
    """A note about tables beside those that are used; empty if there are none."""
    names = [path.name for path in _files(folder) if path.suffix in suffixes and path not in used]
    if not names:
        return []
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return [f"not used: {', '.join(map(brief, names[:_SHOWN]))}{more} in {folder.name}/"]
