"""Multi-label data sets in the formats of Mulan (Tsoumakas et al., JMLR 2011) and MEKA.

``mulan_folder.py`` chooses the files, and ``arff.py`` and ``arff_rows.py`` read the tables. Numeric
attributes, and nominal ones with values 0 and 1, become one feature, other nominal ones are one-hot
encoded, in the file's order; labels may be anywhere among them. A label is numeric with values 0 and 1, or
nominal with a pair of words (``Attribute.bits``). A row without any label value (all ?) is not labelled.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path

import numpy as np

from bbam_ray.data.formats.arff import MEKA, ArffTable, Attribute
from bbam_ray.data.formats.arff_rows import ArffRows
from bbam_ray.data.formats.mulan_folder import MulanFolder, is_mulan, locate, mulan_files
from bbam_ray.data.formats.tables import check_name
from bbam_ray.data.formats.xml_files import read_xml
from bbam_ray.errors import UsageError, brief, quoted, similar

__all__ = ["MulanPart", "is_mulan", "mulan_files", "read_mulan"]
MAX_BYTES = 8 << 30  # of one part in memory


@dataclass(frozen=True)
class MulanPart:
    """One table.

    Args:
        features: (N, F) float32.
        labels: (N, K) uint8; zero in rows that are not labelled.
        is_labeled: (N,) bool; False if all labels of a row are missing.
        notes: as in ``Samples``.
    """

    features: np.ndarray
    labels: np.ndarray
    is_labeled: np.ndarray
    notes: tuple[str, ...] = ()


def read_mulan(folder: Path) -> tuple[dict[str, MulanPart], tuple[str, ...]]:
    """Parts ``train`` and, if present, ``test``; and the label names in the order of the XML or table.

    Raises:
        UsageError: not one data set, or files that contradict each other or cannot be read as numbers.
    """
    files = locate(folder)
    check_name(next(iter(files.tables.values())))
    tables = {part: ArffTable(path) for part, path in files.tables.items()}
    first = tables["train"]
    labels = _label_names(files.xml) if files.xml else first.labels_by_relation()
    for table in tables.values():
        _check_labels(table, labels, files.xml or first.path)
    _check_features([*tables.values()], labels)
    parts = {part: _load(table, labels, part) for part, table in tables.items()}
    notes = (*files.notes, *_notes(files, tables, parts, labels))
    parts["train"] = replace(parts["train"], notes=notes)
    return parts, labels


def _notes(
    files: MulanFolder,
    tables: dict[str, ArffTable],
    parts: dict[str, MulanPart],
    labels: tuple[str, ...],
) -> list[str]:
    """What is not obvious: labels that the relation names, and rows without labels."""
    notes, first = [], tables["train"]
    option = MEKA.search(first.relation)
    if files.xml is None and option:
        listed = (
            f"{brief(labels[0])} ... {brief(labels[-1])}" if len(labels) > 1 else brief(labels[0])
        )
        notes.append(f"{first.path.name}: {len(labels)} labels by {option[0]}, {listed}")
    elif files.xml and option and set(labels) != set(_by_option(first)):
        notes.append(
            f"{first.path.name}: its relation says {option[0]}, but the {len(labels)} labels are those of "
            f"{files.xml.name}"
        )
    if "-split-" in first.relation:
        notes.append(f"{first.path.name}: the option -split of its relation is not used")
    for part, table in tables.items():
        if count := int(np.sum(~parts[part].is_labeled)):
            every = len(parts[part].labels)
            notes.append(f"{table.path.name}: {count} of {every} rows have no labels (?)")
    return notes


def _by_option(table: ArffTable) -> tuple[str, ...]:
    try:
        return table.labels_by_relation()
    except UsageError:  # an option that does not fit this table; the XML decides
        return ()


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


def _check_labels(table: ArffTable, labels: tuple[str, ...], source: Path) -> None:
    known = {attribute.name: attribute for attribute in table.attributes}
    for label in labels:
        if label not in known:
            raise UsageError(
                f"{source}: label {quoted(label)} is not an attribute of {table.path.name}; "
                f"{similar(label, known)}"
            )
        if known[label].values is not None and known[label].bits is None:
            raise table.error(
                known[label].line,
                f"label {quoted(label)} is declared with values other than 0 and 1 (or false and true, no "
                "and yes); declare it as {0,1} and write its values so",
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


def _load(table: ArffTable, labels: tuple[str, ...], part: str) -> MulanPart:
    number = {label: k for k, label in enumerate(labels)}
    is_label = np.array([a.name in number for a in table.attributes])
    one_hot = np.array([a.one_hot for a in table.attributes])
    # What the code of a nominal label means; labels with values 0 and 1 are read as numbers.
    bits = {
        index: np.array(a.bits, dtype=np.float64)
        for index, a in enumerate(table.attributes)
        if is_label[index] and one_hot[index]
    }
    one_hot &= ~is_label
    widths = np.where(is_label, 0, [a.width for a in table.attributes])
    # Column of each attribute: its first among the features, or that of its label.
    column = np.cumsum(widths) - widths
    column[is_label] = [number[a.name] for a in table.attributes if a.name in number]
    features: np.ndarray = np.zeros((table.rows, int(widths.sum())), dtype=np.float32)
    values_of_labels: np.ndarray = np.zeros((table.rows, len(labels)), dtype=np.uint8)
    is_labeled: np.ndarray = np.ones(table.rows, dtype=bool)
    # Values left out in sparse rows are those declared first.
    for a, attribute in enumerate(table.attributes):
        if is_label[a]:
            values_of_labels[:, column[a]] = attribute.bits[0] if attribute.bits else 0
        elif one_hot[a] or (attribute.binary and attribute.values == ("1", "0")):
            features[:, column[a]] = 1
    for row, (line, at, values) in enumerate(ArffRows(table, number)):
        to, target = column[at], is_label[at]
        hot = one_hot[at]
        if hot.any():
            features[row, to[hot]] = 0
            to[hot] += values[hot].astype(np.int64)
            values[hot] = 1
        if bits:
            for position in np.flatnonzero(target & ~np.isnan(values)).tolist():
                if (meaning := bits.get(int(at[position]))) is not None:
                    values[position] = meaning[int(values[position])]
        row_labels = values[target]
        missing = np.isnan(row_labels)
        if missing.any():
            if missing.sum() < len(labels) or part == "test":
                name = table.attributes[at[target][missing][0]].name
                what = (
                    "a test row needs all of them"
                    if part == "test"
                    else "others of the row are not"
                )
                raise table.error(
                    line,
                    f"label {quoted(name)} is missing (?), but {what}; fill it in, or remove the row",
                )
            is_labeled[row], values_of_labels[row], row_labels = False, 0, np.zeros(len(labels))
        invalid = (row_labels != 0) & (row_labels != 1)
        if invalid.any():
            name = table.attributes[at[target][invalid][0]].name
            raise table.error(
                line, f"label {quoted(name)} is {row_labels[invalid][0]:g}, not 0 or 1; correct it"
            )
        values_of_labels[row, to[target]] = row_labels
        features[row, to[~target]] = values[~target]
    return MulanPart(features, values_of_labels, is_labeled)
