"""Feature vectors out of ``.npz`` and Parquet files and Mulan folders."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bbam_ray.data.formats.file_list import files_state
from bbam_ray.data.formats.label_tables import (
    NAMES_FILE,
    LabelOptions,
    Labels,
    read_labels,
    with_test_part,
)
from bbam_ray.data.formats.mulan import is_mulan, mulan_files, read_mulan
from bbam_ray.data.formats.npz import array_names, names_of, open_arrays, read_array
from bbam_ray.data.formats.tables import read_table, readable_parquet
from bbam_ray.errors import UsageError, nearest, shown

FEATURES, NAME_COLUMNS, PARTS = (
    "features",
    ("file_name", "name", "id"),
    ("train", "test", "unlabeled"),
)
_ARRAYS = (
    *("features", "labels", "label_names"),
    *("test_features", "test_labels", "unlabeled_features"),
)


@dataclass(frozen=True)
class Vectors:
    """All samples of a file or folder.

    Args:
        features: (N, F) float32, finite.
        labels: which of them have which labels, and which are the test part.
        names: N names, where they have one.
    """

    features: np.ndarray
    labels: Labels
    names: list[str] | None = None


def feature_files(data_dir: Path | None) -> list[Path]:
    """What is read, in order; a UsageError where there is nothing that could be."""
    if data_dir is None:
        raise UsageError(
            "data set 'features' needs --data-dir: an .npz or Parquet file, a folder of Parquet files or "
            "a Mulan folder"
        )
    if not os.path.exists(data_dir):
        raise UsageError(f"--data-dir {data_dir}: no such folder or file")
    if data_dir.is_file():
        if data_dir.suffix not in (".npz", ".parquet"):
            raise UsageError(
                f"--data-dir {data_dir}: expected .npz, .parquet or a folder; for Mulan's .arff give the "
                "folder"
            )
        return [data_dir]
    if is_mulan(data_dir):
        return mulan_files(data_dir)
    files = [path for part in PARTS for path in sorted(data_dir.glob(f"{part}*.parquet"))]
    if not files:
        raise UsageError(
            f"{data_dir}: neither NAME.xml with NAME-train.arff (Mulan) nor train*.parquet; give the file "
            "or folder with the features"
        )
    return files


def features_state(files: list[Path]) -> str:
    """A text that changes when any of the files does, or the label names beside them."""
    names = files[0].parent / NAMES_FILE
    return files_state([*files, names] if names.is_file() else files)


def read_features(files: list[Path], options: LabelOptions) -> Vectors:
    """Everything in some files, with a test part.

    Raises:
        UsageError: another form, unequal widths, labels that are neither 0 nor 1, a number that is not
            finite.
    """
    if files[0].suffix == ".npz":
        vectors = _from_npz(files[0])
    elif files[0].suffix == ".parquet":
        vectors = _from_parquet(files, options)
    else:
        vectors = _from_mulan(files[0].parent)
    bad = np.argwhere(~np.isfinite(vectors.features))
    if len(bad):
        row, column = bad[0]
        name = vectors.names[row] if vectors.names else f"row {row + 1}"
        raise UsageError(
            f"{files[0]}: feature {column + 1} of {shown(name)} is {vectors.features[row, column]}; fill "
            "in or remove what is missing"
        )
    labels = with_test_part(vectors.labels, options.test_fraction)
    return Vectors(vectors.features, labels, vectors.names)


def _from_mulan(folder: Path) -> Vectors:
    parts, names = read_mulan(folder)
    count = {name: len(part.features) for name, part in parts.items()}
    test = np.concatenate([np.full(count[name], name == "test") for name in parts])
    labels = np.concatenate([part.labels for part in parts.values()])
    features = np.concatenate([part.features for part in parts.values()])
    return Vectors(features, Labels(labels, np.ones(len(test), dtype=bool), names, test))


def _from_npz(path: Path) -> Vectors:
    arrays: dict[str, np.ndarray] = {}
    try:
        with open_arrays(path) as archive:
            for name in array_names(archive):
                if name not in _ARRAYS:
                    raise UsageError(
                        f"{path}: unknown array '{shown(name)}'; {nearest(shown(name), _ARRAYS)}"
                    )
                arrays[name] = read_array(archive, name)
            named = names_of(arrays["label_names"]) if "label_names" in arrays else None
    except ValueError as error:
        raise UsageError(f"{path}: not an .npz file of plain arrays ({error})") from None
    for name in ("features", "labels"):
        if name not in arrays:
            raise UsageError(f"{path}: no array '{name}'; has {', '.join(arrays) or 'nothing'}")
    if ("test_features" in arrays) != ("test_labels" in arrays):
        raise UsageError(f"{path}: test_features and test_labels belong together; give both")
    width, labels = arrays["features"].shape[1:], arrays["labels"]
    if labels.ndim != 2 or not labels.shape[1] or labels.dtype.kind not in "fiub":
        raise UsageError(
            f"{path}: labels is {labels.dtype} {labels.shape}; expected 0 and 1 in (N, K)"
        )
    blocks, marks, parts = [], [], []
    for part, name, given in (
        ("train", "features", "labels"),
        ("unlabeled", "unlabeled_features", None),
        ("test", "test_features", "test_labels"),
    ):
        if name not in arrays:
            continue
        block = arrays[name]
        fits = block.ndim == 2 and block.shape[1:] == width and block.shape[1] > 0
        if not fits or block.dtype.kind not in "fiub":
            raise UsageError(
                f"{path}: {name} is {block.dtype} {block.shape}; expected numbers in (N, F), with the F "
                "of features"
            )
        marked = arrays[given] if given else np.zeros((len(block), labels.shape[-1]), np.uint8)
        if marked.shape != (len(block), labels.shape[-1]) or marked.ndim != 2:
            raise UsageError(
                f"{path}: {given} is {marked.shape} for {len(block)} rows of {name}; expected (N, K)"
            )
        if not np.isin(marked, (0, 1)).all():
            row, column = np.argwhere(~np.isin(marked, (0, 1)))[0]
            raise UsageError(
                f"{path}: {given}[{row}, {column}] = {marked[row, column]} is neither 0 nor 1; samples "
                "without labels go into unlabeled_features"
            )
        blocks.append(as_float32(block))
        marks.append(marked.astype(np.uint8))
        parts += [part] * len(block)
    names = list(map(str, range(labels.shape[1]))) if named is None else named
    if len(names) != labels.shape[1] or len(set(names)) < len(names):
        raise UsageError(
            f"{path}: label_names has {len(set(names))} different names for {labels.shape[1]} labels"
        )
    if not all(map(str.strip, names)):
        raise UsageError(f"{path}: label_names has a blank one; name each label")
    is_labeled = np.array([part != "unlabeled" for part in parts])
    test = np.array([part == "test" for part in parts])
    return Vectors(
        np.concatenate(blocks), Labels(np.concatenate(marks), is_labeled, tuple(names), test)
    )


def _from_parquet(files: list[Path], options: LabelOptions) -> Vectors:
    # The name of a single file says nothing: its rows may belong to several parts.
    of_folder = len(files) > 1
    tables = []
    blocks = []
    for path in files:
        part = next((part for part in PARTS if path.name.startswith(part)), None)
        tables.append((read_table(path, (FEATURES,)), part if of_folder else None))
        blocks.append(_feature_column(path))
        if blocks[-1].shape[1] != blocks[0].shape[1]:
            raise UsageError(
                f"{path}: {blocks[-1].shape[1]} features a row, where {files[0].name} has "
                f"{blocks[0].shape[1]}; make both in the same way"
            )
    names_file = files[0].parent / NAMES_FILE
    labels = read_labels(tables, options, ignored=NAME_COLUMNS, names_file=names_file)
    column = next((name for name in NAME_COLUMNS if name in tables[0][0].columns), None)
    names = None
    if column and all(column in table.columns for table, _ in tables):
        names = [str(name) for table, _ in tables for name in table.columns[column]]
    return Vectors(np.concatenate(blocks), labels, names)


def as_float32(values: np.ndarray) -> np.ndarray:
    """Numbers as they are trained on; what is too large becomes infinite, and is told as that."""
    with np.errstate(over="ignore", invalid="ignore"):
        return values.astype(np.float32)


def _feature_column(path: Path) -> np.ndarray:
    """Column ``features`` as (N, F) float32."""
    with readable_parquet(path), pq.ParquetFile(path) as file:
        if FEATURES not in file.schema_arrow.names:
            raise UsageError(f"{path}: no column '{FEATURES}' with a list of numbers in each row")
        column = file.read(columns=[FEATURES]).column(0).combine_chunks()
    kind = column.type
    is_list = (
        pa.types.is_list(kind),
        pa.types.is_large_list(kind),
        pa.types.is_fixed_size_list(kind),
    )
    inner = kind.value_type if any(is_list) else kind
    if not any(is_list) or not (pa.types.is_floating(inner) or pa.types.is_integer(inner)):
        raise UsageError(
            f"{path}: column '{FEATURES}' is {shown(str(kind))}; expected a list of numbers in each row"
        )
    if column.null_count:
        row = column.is_null().to_pylist().index(True)
        raise UsageError(f"{path} row {row + 1}: no features; fill them in or remove the row")
    widths = np.asarray(column.value_lengths())
    if len(set(widths.tolist())) != 1:
        row = int(np.flatnonzero(widths != widths[0])[0])
        raise UsageError(
            f"{path} row {row + 1}: {widths[row]} features, where row 1 has {widths[0]}; every row needs "
            "the same ones"
        )
    if not widths[0]:
        raise UsageError(f"{path} row 1: no features; fill them in")
    values = as_float32(column.flatten().to_numpy(zero_copy_only=False))
    matrix: np.ndarray = values.reshape(len(column), -1)
    return matrix
