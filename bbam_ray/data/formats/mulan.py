"""Multi-label data sets in Mulan's format (Tsoumakas et al., JMLR 2011): ARFF tables, and labels in XML.

Layout as published: ``NAME-train.arff``, ``NAME-test.arff`` and ``NAME.xml`` (an additional ``NAME.arff``
is their union and is not read), or ``NAME.arff`` and ``NAME.xml`` without a test part. ``arff.py`` and
``arff_rows.py`` read the tables. Numeric attributes, and nominal ones with values 0 and 1, become one
feature, other nominal ones are one-hot encoded, in the file's order; labels may be anywhere among them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np

from bbam_ray.data.formats.arff import ArffTable, Attribute
from bbam_ray.data.formats.arff_rows import ArffRows
from bbam_ray.data.formats.tables import check_name
from bbam_ray.data.formats.xml_files import read_xml
from bbam_ray.errors import UsageError, brief, quoted, similar

MAX_BYTES = 8 << 30  # of one part in memory


@dataclass(frozen=True)
class MulanPart:
    """Features and labels of one table."""

    features: np.ndarray  # (N, F) float32
    labels: np.ndarray  # (N, K) uint8


def is_mulan(folder: Path) -> bool:
    """Whether a folder has a NAME.xml with a table of that name (reading may still reject it)."""
    tables = {path.stem for path in _visible(folder, "arff")}
    names = [path.stem for path in _visible(folder, "xml")]
    return any(tables & {name, f"{name}-train", f"{name}-test"} for name in names)


def mulan_files(folder: Path) -> list[Path]:
    """The files that are read: labels, training part and, if present, test part."""
    xml, tables = _locate(folder)
    return [xml, *tables.values()]


def read_mulan(folder: Path) -> tuple[dict[str, MulanPart], tuple[str, ...]]:
    """Parts ``train`` and, if present, ``test``; and the label names in the XML's order."""
    xml, paths = _locate(folder)
    check_name(xml)
    labels = _label_names(xml)
    tables = {part: ArffTable(path) for part, path in paths.items()}
    for table in tables.values():
        _check_labels(table, labels, xml)
    _check_features([*tables.values()], labels)
    return {part: _load(table, labels) for part, table in tables.items()}, labels


def _visible(folder: Path, kind: str) -> list[Path]:
    """Files of a kind, without hidden ones that some programs leave when unpacking (``._NAME.xml``)."""
    return sorted(path for path in folder.glob(f"*.{kind}") if path.name[0] != ".")


def _locate(folder: Path) -> tuple[Path, dict[str, Path]]:
    lists = _visible(folder, "xml")
    if len(lists) != 1:
        names = " and ".join(brief(path.name) for path in lists[:2]) or "no .xml file"
        raise UsageError(
            f"{folder}: expected one data set, NAME.xml with NAME-train.arff and NAME-test.arff or with "
            f"NAME.arff, but found {names}; give the folder of one data set"
        )
    xml, tables = lists[0], {path.stem: path for path in _visible(folder, "arff")}
    name = xml.stem
    if unrelated := sorted(set(tables) - {name, f"{name}-train", f"{name}-test"}):
        raise UsageError(
            f"{brief(str(tables[unrelated[0]]), 300)}: does not belong to {brief(xml.name)}, whose tables "
            f"are {brief(name)}-train.arff and {brief(name)}-test.arff, or {brief(name)}.arff; rename it "
            "or move it out of this folder"
        )
    parts = {
        part: tables[f"{name}-{part}"] for part in ("train", "test") if f"{name}-{part}" in tables
    }
    if not parts and name in tables:
        parts = {"train": tables[name]}
    if "train" not in parts:
        raise UsageError(
            f"{folder}: no {brief(name)}-train.arff next to {brief(xml.name)}; unpack the data set "
            f"again, or name its table {brief(name)}.arff if it has no test part"
        )
    return xml, parts


def _label_names(xml: Path) -> tuple[str, ...]:
    """All labels in document order, including those nested in others (a hierarchy)."""
    root = read_xml(xml, "a list of labels", "unpack the data set again")
    names = [tag.get("name", "") for tag in root.iter() if tag.tag.rpartition("}")[2] == "label"]
    if not names or "" in names:
        what = "a <label> has no name" if names else "no <label name=...>"
        raise UsageError(f"{xml}: {what}; list every label of the tables with its name")
    if len(set(names)) < len(names):
        duplicate = next(name for number, name in enumerate(names) if name in names[:number])
        raise UsageError(f"{xml}: duplicate label {quoted(duplicate)}; remove one of them")
    return tuple(names)


def _check_labels(table: ArffTable, labels: tuple[str, ...], xml: Path) -> None:
    known = {attribute.name: attribute for attribute in table.attributes}
    for label in labels:
        if label not in known:
            raise UsageError(
                f"{xml}: label {quoted(label)} is not an attribute of {table.path.name}; "
                f"{similar(label, known)}"
            )
        if known[label].one_hot:
            raise table.error(
                known[label].line,
                f"label {quoted(label)} is declared with values other than 0 and 1; declare it as "
                "{0,1} and write its values so",
            )


def _check_features(tables: list[ArffTable], labels: tuple[str, ...]) -> None:
    """Check that both parts have the same features, and that they fit into memory."""
    names = set(labels)
    features = [[a for a in table.attributes if a.name not in names] for table in tables]
    for one, other in zip_longest(features[0], features[-1]):
        if one is None or other is None or _meaning(one) != _meaning(other):
            line, other_line = (
                f"line {a.line} ({quoted(a.name)})" if a else "its end" for a in (other, one)
            )
            raise UsageError(
                f"{tables[-1].path}: its features differ from those of {tables[0].path.name}, first at "
                f"{line}, there at {other_line}; give both the same names, types and declared values in "
                "one order"
            )
    width = sum(a.width for a in features[0])
    for table in tables:
        if not width:
            raise UsageError(
                f"{table.path}: all attributes are labels; add features, or correct the XML"
            )
        size = table.rows * (4 * width + len(labels))
        if size > MAX_BYTES:
            raise UsageError(
                f"{table.path}: {table.rows:,} rows of {width:,} features take {size / 2**30:.1f} GiB, "
                f"but the limit is {MAX_BYTES / 2**30:g} GiB; use fewer rows or features"
            )


def _meaning(attribute: Attribute) -> object:
    """What must agree between parts: {0,1} and {1,0} do, they only differ in sparse rows."""
    return attribute.name, "binary" if attribute.binary else attribute.values


def _load(table: ArffTable, labels: tuple[str, ...]) -> MulanPart:
    number = {label: k for k, label in enumerate(labels)}
    is_label = np.array([a.name in number for a in table.attributes])
    one_hot = np.array([a.one_hot for a in table.attributes])
    widths = np.where(is_label, 0, [a.width for a in table.attributes])
    # Column of each attribute: its first among the features, or that of its label.
    column = np.cumsum(widths) - widths
    column[is_label] = [number[a.name] for a in table.attributes if a.name in number]
    part = MulanPart(
        np.zeros((table.rows, int(widths.sum())), dtype=np.float32),
        np.zeros((table.rows, len(labels)), dtype=np.uint8),
    )
    # Values left out in sparse rows are those declared first.
    for a, attribute in enumerate(table.attributes):
        if attribute.one_hot or (attribute.binary and attribute.values == ("1", "0")):
            (part.labels if is_label[a] else part.features)[:, column[a]] = 1
    for row, (line, at, values) in enumerate(ArffRows(table)):
        to, target = column[at], is_label[at]
        hot = one_hot[at]
        if hot.any():
            part.features[row, to[hot]] = 0
            to[hot] += values[hot].astype(np.int64)
            values[hot] = 1
        row_labels = values[target]
        invalid = (row_labels != 0) & (row_labels != 1)
        if invalid.any():
            name = table.attributes[at[target][invalid][0]].name
            raise table.error(
                line, f"label {quoted(name)} is {row_labels[invalid][0]:g}, not 0 or 1; correct it"
            )
        part.labels[row, to[target]] = row_labels
        part.features[row, to[~target]] = values[~target]
    return part
