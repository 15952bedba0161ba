"""Which files of a folder are a multi-label data set of Mulan or MEKA.

Mulan publishes ``NAME-train.arff``, ``NAME-test.arff`` and ``NAME.xml``, often with ``NAME.arff``, their
union, or ``NAME.arff`` and ``NAME.xml`` alone. MEKA has no XML: ``-C 6`` in the relation of a table means
that its first six attributes are labels, ``-C -6`` the last six. Other files are named as not read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from bbam_ray.errors import UsageError, brief

_PART = re.compile(r"(.*?)[-_.]?(train|test)", re.IGNORECASE)
_TEXT = re.compile(r"(readme|licen[cs]e|sources?).*|.*\.(md|txt|pdf|html?|bib)", re.IGNORECASE)
_SHOWN = 3


@dataclass(frozen=True)
class MulanFolder:
    """The files of one data set.

    Args:
        xml: lists the labels; None if the relations of the tables do.
        tables: part, train or test, to its file.
        notes: a sentence about files that are not read, if there are some.
    """

    xml: Path | None
    tables: dict[str, Path]
    notes: tuple[str, ...] = ()


def is_mulan(folder: Path) -> bool:
    """Whether a folder has a NAME.xml with a table of that name, or ARFF files and no XML.

    Reading may still reject it.
    """
    tables, lists = _visible(folder, "arff"), _visible(folder, "xml")
    if not lists:
        return any(map(_has_relation, tables)) and not _visible(folder, "parquet")
    return any(_tables_of(path.stem, tables) for path in lists)


def mulan_files(folder: Path) -> list[Path]:
    """The files that are read: labels, if they have a file, training part and, if present, test part."""
    files = locate(folder)
    return [*([files.xml] if files.xml else []), *files.tables.values()]


def locate(folder: Path) -> MulanFolder:
    """The files of the one data set in a folder.

    Raises:
        UsageError: none, or several, or one without a training part.
    """
    lists, tables = _visible(folder, "xml"), _visible(folder, "arff")
    if not lists and tables:
        return _without_xml(folder, tables)
    if len(lists) > 1:  # perhaps only one of them has tables
        lists = [path for path in lists if _tables_of(path.stem, tables)] or lists
    if len(lists) != 1:
        names = " and ".join(brief(path.name) for path in lists[:2]) or "no .xml file"
        raise UsageError(
            f"{folder}: expected one data set, NAME.xml with NAME-train.arff and NAME-test.arff or with "
            f"NAME.arff, but it has {names}; give the folder of one data set"
        )
    xml, name = lists[0], lists[0].stem
    parts = _parts(_tables_of(name, tables))
    if "train" not in parts:
        own = _tables_of(name, tables).values()
        if unrelated := [path for path in tables if path not in own]:
            raise UsageError(
                f"{brief(str(unrelated[0]), 300)}: does not belong to {brief(xml.name)}, whose tables are "
                f"{brief(name)}-train.arff and {brief(name)}-test.arff, or {brief(name)}.arff; rename it "
                "or move it out of this folder"
            )
        raise UsageError(
            f"{folder}: no {brief(name)}-train.arff next to {brief(xml.name)}; unpack the data set "
            f"again, or name its table {brief(name)}.arff if it has no test part"
        )
    return MulanFolder(xml, parts, _not_read(folder, [xml, *parts.values()]))


def _without_xml(folder: Path, tables: list[Path]) -> MulanFolder:
    """A data set of MEKA."""
    names = {_name(path) for path in tables}
    if len(names) > 1:
        two = " and ".join(brief(path.name) for path in tables[:2])
        raise UsageError(
            f"{folder}: {two} are different data sets, and no NAME.xml says which to read; give the "
            "folder of one data set"
        )
    parts = _parts(_tables_of(names.pop(), tables))
    if "train" not in parts:
        raise UsageError(
            f"{folder}: {brief(tables[0].name)} has no training part next to it; add it"
        )
    return MulanFolder(None, parts, _not_read(folder, [*parts.values()]))


def _name(path: Path) -> str:
    match = _PART.fullmatch(path.stem)
    return match[1] if match else path.stem


def _tables_of(name: str, tables: list[Path]) -> dict[str, Path]:
    """The tables of a data set: "train", "test" and "" for one that is not a part."""
    parts: dict[str, Path] = {}
    for path in tables:
        match = _PART.fullmatch(path.stem)
        if path.stem == name:
            parts[""] = path
        elif match and match[1] == name:
            parts.setdefault(match[2].lower(), path)
    return parts


def _parts(tables: dict[str, Path]) -> dict[str, Path]:
    """Training part and test part; a table that is not a part is the training part if it is alone."""
    parts: dict[str, Path] = {part: tables[part] for part in ("train", "test") if part in tables}
    return {"train": tables[""]} if not parts and "" in tables else parts


def _visible(folder: Path, kind: str) -> list[Path]:
    """Files of a kind, without hidden ones that some programs leave when unpacking (``._NAME.xml``)."""
    return sorted(path for path in folder.glob(f"*.{kind}") if path.name[0] != ".")


def _has_relation(path: Path) -> bool:
    """Whether a file begins as ARFF does."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return b"@relation" in file.read(1 << 20).lower()


def _not_read(folder: Path, read: list[Path]) -> tuple[str, ...]:
    """A note about data files that are not read; texts about the data set are none."""
    names = [
        brief(path.name)
        for path in sorted(folder.iterdir())
        if path not in read
        and path.is_file()
        and path.name[0] != "."
        and not _TEXT.fullmatch(path.name)
    ]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return (f"{folder.name}: not read: {', '.join(names[:_SHOWN])}{more}",) if names else ()
