"""Names of labels: from files, from Hugging Face's description of a column, and as texts of cells."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bbam_ray.data.formats.tables import UserTable, read_text
from bbam_ray.documents import parse_json
from bbam_ray.errors import UsageError, brief

NAMES_FILE = "labels.txt"  # next to the data: the names of all labels, one per line
_INVISIBLE = "\ufeff\u200b\u2060"
_LIKE_MISSING = {"nan", "none", "null", "n/a", "na", "<na>", "nat", "nil"}
_SHOWN = 3


@dataclass(frozen=True)
class KnownNames:
    """Names that are known before the labels are read.

    Args:
        path: of the names file.
        file: its names; empty if there is no such file.
        features: names of numbers, from Hugging Face's description of the column.
    """

    path: Path
    file: tuple[str, ...] = ()
    features: tuple[str, ...] = ()

    @property
    def numbered(self) -> tuple[str, ...]:
        """Names by number, from 0; empty if unknown."""
        return self.features or self.file

    @property
    def source(self) -> str:
        """Where the names by number are from."""
        return "the file's ClassLabel names" if self.features else self.path.name


def known_names(tables: Sequence[UserTable], path: Path, column: str) -> KnownNames:
    """Names from the names file and from the metadata of Parquet files.

    Args:
        tables: that hold the labels.
        path: of the names file, which need not exist.
        column: with the labels; the names of other columns are not used.

    Raises:
        UsageError: a duplicate name, or two tables with different names.
    """
    file = tuple(_names_in(path)) if path.is_file() else ()
    features: tuple[str, ...] = ()
    for table in tables:
        names = class_names(table, column)
        if names and features and names != features:
            raise UsageError(
                f"{table.path}: ClassLabel names of '{brief(column)}' differ from those of "
                f"{tables[0].path.name}; write both files with the same features"
            )
        features = features or names
    return KnownNames(path, file, features)


def class_names(table: UserTable, column: str) -> tuple[str, ...]:
    """Names of the numbers in a column, which Hugging Face datasets store in the file's "
    "metadata."""
    try:
        info = parse_json(table.metadata.get(b"huggingface", b"{}").decode())
        feature = info["info"]["features"][column]
    except (ValueError, LookupError, TypeError):
        return ()
    for _ in range(4):  # Sequence, List or LargeList of a ClassLabel
        if isinstance(feature, list) and len(feature) == 1:
            feature = feature[0]
        elif isinstance(feature, dict) and "feature" in feature:
            feature = feature["feature"]
    names = feature.get("names") if isinstance(feature, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return ()
    cleaned = tuple(map(clean, names))
    if len(set(cleaned)) < len(cleaned) or not all(cleaned):
        raise UsageError(
            f"{table.path}: ClassLabel names of '{brief(column)}' are blank or occur twice; "
            "correct them"
        )
    return cleaned


def _names_in(path: Path) -> list[str]:
    lines = read_text(path, "write one label per line").splitlines()
    names = [name for line in lines if (name := clean(line))]
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise UsageError(f"{path}: duplicate label '{brief(name)}'; list each label once")
        seen.add(name)
    return names


def clean(name: Any) -> str:
    """A name in Unicode's composed form (NFC), without blanks and invisible characters around "
    "it."""
    text = str(name)
    if not text.isascii():
        text = unicodedata.normalize("NFC", text).strip().strip(_INVISIBLE)
    return text.strip()


def ordered(names: Iterable[str]) -> tuple[str, ...]:
    """Names in their order: numbers by value, all others by text."""
    distinct = set(names)
    if all(name.isascii() and name.isdigit() for name in distinct):
        return tuple(sorted(distinct, key=lambda name: (int(name), name)))
    return tuple(sorted(distinct))


def name_notes(names: Sequence[str]) -> list[str]:
    """Notes about names that may be a mistake: missing values as texts, names that differ in "
    "case only."""
    notes = []
    if missing := [name for name in names if name.lower() in _LIKE_MISSING]:
        listed = " and ".join(f"'{brief(name)}'" for name in missing)
        notes.append(
            f"{listed} {'is a label' if len(missing) == 1 else 'are labels'}; for missing values "
            "use "
            f"--set blank_texts={','.join(missing)} --set blank=unlabeled"
        )
    forms: dict[str, list[str]] = defaultdict(list)
    for name in names:
        forms[" ".join(name.casefold().split())].append(name)
    if same := [group for group in forms.values() if len(group) > 1]:
        groups = "; ".join(", ".join(f"'{brief(n)}'" for n in group) for group in same[:_SHOWN])
        more = f" and {len(same) - _SHOWN} more" if len(same) > _SHOWN else ""
        notes.append(
            f"labels that differ only in case or blanks are different labels: {groups}{more}"
        )
    return notes
