"""``images``: your own images, in one of three layouts.

- ``labels.csv`` (or ``.tsv``) beside a folder ``images/``: a column ``file_name``, and either a 0/1
  column a label or one column ``labels``;
- Hugging Face folders: ``metadata.csv``, ``.jsonl`` or ``.parquet`` with ``file_name`` and ``labels``, in
  the folder itself or in ``train/`` and ``test/``;
- Parquet: one file, or ``train*.parquet``, ``test*.parquet``, ``unlabeled*.parquet`` in the folder or
  its ``data/``, with a column ``image`` (bytes) and ``labels``.

A folder ``unlabeled/`` holds more images that nobody has labelled. A column ``split`` may say train, test
or unlabeled; without a test part a share of the labelled rows becomes one.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow.parquet as pq
from pydantic import Field

from bbam_ray.config import DatasetOptions
from bbam_ray.data.datasets.base import Part, ViewSettings
from bbam_ray.data.datasets.image_base import IMAGE_SUFFIXES, ImageDataset, ImageOptions, ImageTable
from bbam_ray.data.formats.image_sources import ImageFiles, ImageSource, ParquetImages, holds_images
from bbam_ray.data.formats.label_tables import (
    NAMES_FILE,
    LabelOptions,
    Labels,
    read_labels,
    safe_relative,
    with_test_part,
)
from bbam_ray.data.formats.tables import Table, read_table, readable_parquet
from bbam_ray.errors import UsageError, shown

UNLABELED = "unlabeled"
_FILE_COLUMNS = ("file_name", "filename", "file", "image", "path")
_IMAGE_COLUMN = "image"


class ImagesOptions(ImageOptions, LabelOptions):
    """Options of the data set ``images``."""

    flip: bool = Field(
        True,
        description="Mirror images as augmentation; false if a mirrored image has other labels.",
    )


@dataclass(frozen=True)
class _Layout:
    """Tables with the part of all their rows (None: a column may say it) and the folder of their files."""

    tables: list[tuple[Path, str | None, Path]]
    in_parquet: bool = False


class Images(ImageDataset):
    """A user's own images."""

    name: ClassVar[str] = "images"
    Options: ClassVar[type[DatasetOptions]] = ImagesOptions
    defaults: ClassVar[dict[str, Any]] = {**ImageDataset.defaults, "labeled_fraction": None}

    def views_for(self, options: ImagesOptions) -> ViewSettings:
        return replace(self.views, flip=options.flip)

    def label_files(self, options: ImagesOptions, data_dir: Path | None) -> list[Path]:
        root = _root(data_dir)
        tables, names = [path for path, _, _ in _layout(root).tables], _names_file(root)
        return [*tables, names] if names.is_file() else tables

    def table(self, options: ImagesOptions, data_dir: Path | None, part: Part) -> ImageTable:
        root = _root(data_dir)
        layout = _layout(root)
        read = _read(layout)
        # Before the labels: a file of another kind is told by what it lacks.
        paths = [] if layout.in_parquet else _paths(read, layout)
        given = read_labels(read, options, ignored=_FILE_COLUMNS, names_file=_names_file(root))
        labels = with_test_part(given, options.test_fraction)
        rows = np.flatnonzero(labels.test == (part == "test"))
        if layout.in_parquet:
            names = [f"{table.path.name} row {line}" for table, _ in read for line in table.lines]
            chosen = [names[row] for row in rows]
            images = ParquetImages([table.path for table, _ in read], _IMAGE_COLUMN, rows, chosen)
            return _image_table(images, labels, rows, 0)
        more = sorted(_images_in(root / UNLABELED)) if part == "train" else []
        files = ImageFiles([*(paths[row] for row in rows), *more], root)
        return _image_table(files, labels, rows, len(more))

    def unlisted(self, options: ImagesOptions, data_dir: Path | None) -> list[Path]:
        """Images beside the listed ones that no table names: they are not used."""
        root = _root(data_dir)
        layout = _layout(root)
        if layout.in_parquet:
            return []
        used = {*_paths(_read(layout), layout), *_images_in(root / UNLABELED)}
        return sorted(path for path in _images_in(root) if path not in used)


def _image_table(images: ImageSource, labels: Labels, rows: np.ndarray, more: int) -> ImageTable:
    """Chosen rows, and ``more`` images without labels after them."""
    chosen = np.pad(labels.labels[rows], ((0, more), (0, 0)))
    is_labeled = np.pad(labels.is_labeled[rows], (0, more))
    return ImageTable(images, chosen, labels.names, None if is_labeled.all() else is_labeled)


def _root(data_dir: Path | None) -> Path:
    if data_dir is None:
        raise UsageError(
            "data set 'images' needs --data-dir: the folder (or Parquet file) with yours"
        )
    if not os.path.exists(data_dir):
        raise UsageError(f"--data-dir {data_dir}: no such folder or file")
    if data_dir.is_file() and data_dir.suffix != ".parquet":
        raise UsageError(f"--data-dir {data_dir}: give the folder that holds this file")
    return data_dir


def _names_file(root: Path) -> Path:
    return (root.parent if root.is_file() else root) / NAMES_FILE


def _layout(root: Path) -> _Layout:
    """Which of the three layouts a folder has; exactly one."""
    if root.is_file():
        return _Layout([(root, None, root.parent)], in_parquet=True)
    images = root / "images" if (root / "images").is_dir() else root
    found = [
        _Layout([(root / name, None, images)])
        for name in ("labels.csv", "labels.tsv")
        if (root / name).is_file()
    ]
    named = [f"metadata{suffix}" for suffix in (".csv", ".jsonl", ".parquet")]
    tables = [(root / name, None, root) for name in named if (root / name).is_file()]
    if tables:
        found.append(_Layout([*tables]))
    parts = [
        (root / part / name, part, root / part)
        for part in ("train", "test")
        for name in named
        if (root / part / name).is_file()
    ]
    if parts:
        found.append(_Layout([*parts]))
    for folder in (root, root / "data"):
        files = [
            (path, part, folder)
            for part in ("train", "test", UNLABELED)
            for path in sorted(folder.glob(f"{part}*.parquet"))
        ]
        if files:
            found.append(_Layout([*files], in_parquet=True))
    if not found:
        raise UsageError(
            f"{root}: none of the layouts of your own images; put labels.csv beside images/, "
            "metadata.csv, .jsonl or .parquet beside the images, or train.parquet with the columns "
            "image and labels"
        )
    if len(found) > 1:
        first, second = (layout.tables[0][0] for layout in found[:2])
        raise UsageError(f"{root}: both {first.name} and {second.relative_to(root)}; keep one")
    return found[0]


def _read(layout: _Layout) -> list[tuple[Table, str | None]]:
    """The tables with the part of all their rows; images inside Parquet are left where they are."""
    if not layout.in_parquet:
        return [(read_table(path), part) for path, part, _ in layout.tables]
    read = [(read_table(path, (_IMAGE_COLUMN,)), part) for path, part, _ in layout.tables]
    for table, _ in read:
        with readable_parquet(table.path):
            schema = pq.read_schema(table.path)
        if _IMAGE_COLUMN not in schema.names:
            raise UsageError(f"{table.path}: no column '{_IMAGE_COLUMN}' with the bytes of images")
        kind = schema.field(_IMAGE_COLUMN).type
        if not holds_images(kind):
            raise UsageError(
                f"{table.path}: column '{_IMAGE_COLUMN}' is {shown(str(kind))}; expected the bytes of "
                "images"
            )
    return read


def _paths(read: list[tuple[Table, str | None]], layout: _Layout) -> list[Path]:
    """The file of each row of some tables; each file has one row."""
    paths: dict[Path, str] = {}
    for (table, _), (_, _, folder) in zip(read, layout.tables, strict=True):
        column = next((name for name in _FILE_COLUMNS if name in table.columns), None)
        if column is None:
            raise UsageError(
                f"{table.path}: no column of file names; call it file_name (columns: "
                f"{shown(', '.join(table.columns), 300)})"
            )
        for row, name in enumerate(table.columns[column]):
            path = folder / safe_relative(name, table.where(row))
            if path in paths:
                raise UsageError(
                    f"{table.where(row)}: file '{shown(name)}' again, after {paths[path]}"
                )
            if not os.path.isfile(path):  # unlike pathlib it bears names that are too long
                raise UsageError(f"{table.where(row)}: there is no file {shown(str(path), 300)}")
            paths[path] = table.where(row)
    return list(paths)


def _images_in(folder: Path) -> list[Path]:
    return [
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
    ]
