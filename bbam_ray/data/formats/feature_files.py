"""Feature vectors from ``.npz`` files, Parquet files and Mulan folders."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bbam_ray.data.formats.file_list import files_state, is_hidden
from bbam_ray.data.formats.labels.names import NAMES_FILE, clean, name_notes
from bbam_ray.data.formats.labels.options import LabelOptions
from bbam_ray.data.formats.labels.reader import read_labels
from bbam_ray.data.formats.labels.result import Labels, Reading, with_notes, with_test_part
from bbam_ray.data.formats.mulan import is_mulan, mulan_files, read_mulan
from bbam_ray.data.formats.npz import array_names, names_of, open_arrays, read_array
from bbam_ray.data.formats.part_files import part_files, part_of_file, unused_tables
from bbam_ray.data.formats.tables import read_user_table, readable_parquet
from bbam_ray.errors import UsageError, brief, nearest

FEATURES, NAME_COLUMNS = "features", ("file_name", "name", "id")
_ARRAYS = (
    *("features", "labels", "label_names"),
    *("test_features", "test_labels", "unlabeled_features"),
)


@dataclass(frozen=True)
class Vectors:
    """All samples of a file or folder.

    Args:
        features: (N, F) float32, finite.
        labels: their labels, and which of them are the test part.
        names: N names; None if the samples have no names.
        notes: as in ``Samples``.
    """

    features: np.ndarray
    labels: Labels
    names: list[str] | None = None
    notes: tuple[str, ...] = ()


def feature_files(data_dir: Path | None) -> list[Path]:
    """The files that ``read_features`` reads, in order; a UsageError if there are none."""
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
                f"--data-dir {data_dir}: expected .npz, .parquet or a folder; for Mulan's .arff files, "
                "give their folder"
            )
        return [data_dir]
    if is_mulan(data_dir):
        return mulan_files(data_dir)
    if files := part_files(data_dir, (".parquet",)):
        return files
    single = [
        path
        for path in sorted(data_dir.iterdir())
        if path.suffix in (".npz", ".parquet") and not is_hidden(path, data_dir)
    ]
    if len(single) == 1:
        return single
    several = f"; it has {single[0].name} and {single[1].name}" if single else ""
    raise UsageError(
        f"{data_dir}: contains neither NAME.xml with NAME-train.arff (Mulan) nor train*.parquet nor a "
        f"single .npz or .parquet file; give the file or folder with the features{several}"
    )


def features_state(files: list[Path]) -> str:
    """A text that changes when one of the files or the label names next to them change."""
    names = files[0].parent / NAMES_FILE
    return files_state([*files, names] if names.is_file() else files)


def read_features(files: list[Path], options: LabelOptions) -> Vectors:
    """Read all samples of some files, and choose a test part if they have none.

    Raises:
        UsageError: an unexpected form, rows of different lengths, labels other than 0 and 1, or numbers
            that are not finite.
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
            f"{files[0]}: feature {column + 1} of {brief(name)} is {vectors.features[row, column]}; "
            "correct it, or remove the row"
        )
    labels = with_test_part(vectors.labels, options.test_fraction)
    if files[0].suffix == ".parquet" and len(files) > 1:
        labels = with_notes(labels, unused_tables(files[0].parent, files, (".parquet",)))
    return replace(vectors, labels=labels)


def _from_mulan(folder: Path) -> Vectors:
    parts, names = read_mulan(folder)
    count = {name: len(part.features) for name, part in parts.items()}
    test = np.concatenate([np.full(count[name], name == "test") for name in parts])
    labels = np.concatenate([part.labels for part in parts.values()])
    features = np.concatenate([part.features for part in parts.values()])
    is_labeled = np.concatenate([part.is_labeled for part in parts.values()])
    if not is_labeled.any():
        raise UsageError(
            f"{folder}: all labels of all {len(test)} rows are missing (?), so there is nothing to learn "
            "from; add a table with labels, NAME-train.arff"
        )
    reading = Reading(
        f"labels: Mulan folder, {len(names)} names; {is_labeled.sum():,} of {len(test):,} rows labelled"
    )
    labelled = Labels(labels, is_labeled, names, test, reading=reading)
    return Vectors(features, labelled, notes=parts["train"].notes)


def _from_npz(path: Path) -> Vectors:
    arrays: dict[str, np.ndarray] = {}
    try:
        with open_arrays(path) as archive:
            for name in array_names(archive):
                if name not in _ARRAYS:
                    raise UsageError(
                        f"{path}: unknown array '{brief(name)}'; {nearest(brief(name), _ARRAYS)}"
                    )
                arrays[name] = read_array(archive, name)
            named = names_of(arrays["label_names"]) if "label_names" in arrays else None
    except ValueError as error:
        raise UsageError(f"{path}: not an .npz file of plain arrays ({error})") from None
    for name in ("features", "labels"):
        if name not in arrays:
            raise UsageError(
                f"{path}: no array '{name}' (arrays: {', '.join(arrays) or 'none'}); add it"
            )
    if ("test_features" in arrays) != ("test_labels" in arrays):
        raise UsageError(f"{path}: found only one of test_features and test_labels; give both")
    width, labels = arrays["features"].shape[1:], arrays["labels"]
    if labels.ndim != 2 or not labels.shape[1] or labels.dtype.kind not in "fiub":
        raise UsageError(
            f"{path}: labels is {labels.dtype} {labels.shape}; expected 0 and 1, of shape (N, K)"
        )
    blocks, label_blocks, parts = [], [], []
    for part, name, labels_name in (
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
                f"{path}: {name} is {block.dtype} {block.shape}; expected numbers of shape (N, F), where "
                "F is the width of features"
            )
        label_block = np.zeros((len(block), labels.shape[-1]), np.uint8)
        if labels_name is not None:
            label_block = arrays[labels_name]
        if label_block.shape != (len(block), labels.shape[-1]) or label_block.ndim != 2:
            raise UsageError(
                f"{path}: {labels_name} is {label_block.shape} for {len(block)} rows of {name}; expected "
                "shape (N, K)"
            )
        if not np.isin(label_block, (0, 1)).all():
            row, column = np.argwhere(~np.isin(label_block, (0, 1)))[0]
            raise UsageError(
                f"{path}: {labels_name}[{row}, {column}] = {label_block[row, column]} is neither 0 nor 1; "
                "put samples without labels into unlabeled_features"
            )
        blocks.append(as_float32(block))
        label_blocks.append(label_block.astype(np.uint8))
        parts += [part] * len(block)
    names = list(map(str, range(labels.shape[1]))) if named is None else list(map(clean, named))
    if len(names) != labels.shape[1] or len(set(names)) < len(names):
        raise UsageError(
            f"{path}: label_names has {len(set(names))} different names for {labels.shape[1]} labels; "
            "name each label once"
        )
    if not all(map(str.strip, names)):
        raise UsageError(f"{path}: label_names contains a blank name; name each label")
    is_labeled = np.array([part != "unlabeled" for part in parts])
    test = np.array([part == "test" for part in parts])
    source = "label_names" if named is not None else "their positions"
    reading = Reading(
        f"labels: array `labels` of 0 and 1, {len(names)} names from {source}; "
        f"{int(is_labeled.sum()):,} of {len(is_labeled):,} rows labelled",
        tuple(name_notes(names)),
    )
    labelled = Labels(np.concatenate(label_blocks), is_labeled, tuple(names), test, reading=reading)
    return Vectors(np.concatenate(blocks), labelled)


def _from_parquet(files: list[Path], options: LabelOptions) -> Vectors:
    # The name of a single file does not tell the part: its rows may belong to several.
    of_folder = len(files) > 1
    tables = []
    blocks = []
    for path in files:
        part = part_of_file(path) if of_folder else None
        tables.append((read_user_table(path, (FEATURES,)), part))
        blocks.append(_feature_column(path))
        if blocks[-1].shape[1] != blocks[0].shape[1]:
            raise UsageError(
                f"{path}: {blocks[-1].shape[1]} features per row, but {files[0].name} has "
                f"{blocks[0].shape[1]}; extract both with the same network"
            )
    names_file = files[0].parent / NAMES_FILE
    labels = read_labels(tables, options, ignored=NAME_COLUMNS, names_file=names_file)
    column = next((name for name in NAME_COLUMNS if name in tables[0][0].columns), None)
    names = None
    if column and all(column in table.columns for table, _ in tables):
        names = [str(name) for table, _ in tables for name in table.values(column)]
    return Vectors(np.concatenate(blocks), labels, names)


def as_float32(values: np.ndarray) -> np.ndarray:
    """Values as float32; values beyond its range become inf, which callers report."""
    with np.errstate(over="ignore", invalid="ignore"):
        return values.astype(np.float32)


def _feature_column(path: Path) -> np.ndarray:
    """Column ``features`` as (N, F) float32."""
    with readable_parquet(path), pq.ParquetFile(path) as file:
        if FEATURES not in file.schema_arrow.names:
            raise UsageError(
                f"{path}: no column '{FEATURES}'; add it, a list of numbers in each row"
            )
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
            f"{path}: column '{FEATURES}' is {brief(str(kind))}; expected a list of numbers in each row"
        )
    if column.null_count:
        row = column.is_null().to_pylist().index(True)
        raise UsageError(f"{path} row {row + 1}: no features; fill them in or remove the row")
    widths = np.asarray(column.value_lengths())
    if len(set(widths.tolist())) != 1:
        row = int(np.flatnonzero(widths != widths[0])[0])
        raise UsageError(
            f"{path} row {row + 1}: {widths[row]} features, but row 1 has {widths[0]}; give every row "
            "the same features"
        )
    if not widths[0]:
        raise UsageError(f"{path} row 1: an empty list of features; fill it in")
    values = as_float32(column.flatten().to_numpy(zero_copy_only=False))
    matrix: np.ndarray = values.reshape(len(column), -1)
    return matrix
