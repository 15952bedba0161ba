"""``images``: your own images, in one of three layouts.

- ``labels.csv`` (or ``.tsv``) next to a folder ``images/``: a column ``file_name``, and either one 0/1
  column per label or a single column ``labels``;
- Hugging Face folders: ``metadata.csv``, ``.jsonl`` or ``.parquet`` with ``file_name`` and ``labels``, in
  the folder itself or in ``train/`` and ``test/``;
- Parquet: one file, or ``train*.parquet``, ``test*.parquet``, ``unlabeled*.parquet`` in the folder or
  its ``data/``, with a column ``image`` (bytes) and ``labels``.

A folder ``unlabeled/`` holds more images, without labels. A column ``split`` may name the part of each
row: train, test or unlabeled. Without a test part, a share of the labelled rows becomes one.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from bbam_ray.config import DatasetOptions
from bbam_ray.data.datasets.base import Part, ViewSettings
from bbam_ray.data.datasets.image_base import IMAGE_SUFFIXES, ImageDataset, ImageOptions, ImageTable
from bbam_ray.data.formats.file_list import is_hidden, safe_relative
from bbam_ray.data.formats.image_sources import ImageFiles, ImageSource, ParquetImages, holds_images
from bbam_ray.data.formats.labels.names import NAMES_FILE
from bbam_ray.data.formats.labels.options import LabelOptions
from bbam_ray.data.formats.labels.reader import read_labels
from bbam_ray.data.formats.labels.result import Labels, with_test_part
from bbam_ray.data.formats.part_files import part_files, part_of_file, part_of_name
from bbam_ray.data.formats.tables import UserTable, read_user_table
from bbam_ray.errors import UsageError, brief

UNLABELED = "unlabeled"
_FILE_COLUMNS = ("file_name", "filename", "file", "image", "path")
_IMAGE_COLUMN = "image"
_LISTED = "add the file, or remove the row"


class ImagesOptions(ImageOptions, LabelOptions):
    """Options of the data set ``images``."""

    flip: bool = Field(
        True,
        description="Mirror images as augmentation; false if a mirrored image has other labels.",
    )


@dataclass(frozen=True)
class _Layout:
    """How a user's folder is organised.

    Args:
        tables: path, part of all its rows (None: see its column ``split``) and folder of its files.
        in_parquet: whether the tables contain the images themselves.
    """

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

    def tables(self, options: ImagesOptions, data_dir: Path | None) -> dict[Part, ImageTable]:
        root = _root(data_dir)
        layout = _layout(root)
        tables = _read(layout)
        # Before the labels: for a table of another kind, the missing file column is the better error.
        files = {} if layout.in_parquet else _files(tables, layout)
        labels = with_test_part(
            read_labels(tables, options, ignored=_FILE_COLUMNS, names_file=_names_file(root)),
            options.test_fraction,
        )
        rows: dict[Part, np.ndarray] = {
            "train": np.flatnonzero(~labels.test),
            "test": np.flatnonzero(labels.test),
        }
        if layout.in_parquet:
            names = [
                f"{table.path.name} row {row + 1}"
                for table, _ in tables
                for row in range(len(table))
            ]
            paths = [table.path for table, _ in tables]
            return {
                part: _image_table(
                    ParquetImages(paths, _IMAGE_COLUMN, chosen, [names[row] for row in chosen]),
                    labels,
                    chosen,
                )
                for part, chosen in rows.items()
            }
        listed = list(files)
        unlisted = sorted(_images_in(root / UNLABELED))
        train = ImageFiles([*(listed[row] for row in rows["train"]), *unlisted], root)
        test = ImageFiles([listed[row] for row in rows["test"]], root)
        if missing := (*train.scan.missing, *test.scan.missing):
            path = brief(str(missing[0]), 300)
            raise UsageError(f"{files[missing[0]]}: there is no file {path}; {_LISTED}")
        return {
            "train": _image_table(train, labels, rows["train"], len(unlisted)),
            "test": _image_table(test, labels, rows["test"]),
        }

    def unused(self, options: ImagesOptions, data_dir: Path | None) -> list[Path]:
        root = _root(data_dir)
        layout = _layout(root)
        if layout.in_parquet:
            return []
        used = {*_files(_read(layout), layout), *_images_in(root / UNLABELED)}
        return sorted(path for path in _images_in(root) if path not in used)


def _image_table(
    images: ImageSource, labels: Labels, rows: np.ndarray, unlisted: int = 0
) -> ImageTable:
    """Chosen rows of the tables, followed by ``unlisted`` images without labels."""
    chosen = np.pad(labels.labels[rows], ((0, unlisted), (0, 0)))
    is_labeled = np.pad(labels.is_labeled[rows], (0, unlisted))
    is_validation = None
    if labels.validation is not None and labels.validation[rows].any():
        is_validation = np.pad(labels.validation[rows], (0, unlisted))
    return ImageTable(
        images,
        chosen,
        labels.names,
        None if is_labeled.all() else is_labeled,
        is_validation,
        labels.reading,
    )


def _root(data_dir: Path | None) -> Path:
    if data_dir is None:
        raise UsageError(
            "data set 'images' needs --data-dir: the folder (or Parquet file) with your images"
        )
    if not os.path.exists(data_dir):
        raise UsageError(f"--data-dir {data_dir}: no such folder or file")
    if data_dir.is_file() and data_dir.suffix != ".parquet":
        raise UsageError(f"--data-dir {data_dir}: give the folder with this file")
    return data_dir


def _names_file(root: Path) -> Path:
    return (root.parent if root.is_file() else root) / NAMES_FILE


def _layout(root: Path) -> _Layout:
    """Which of the three layouts a folder has; exactly one."""
    if root.is_file():
        return _Layout([(root, None, root.parent)], in_parquet=True)
    images = root / "images" if (root / "images").is_dir() else root
    layouts = [
        _Layout([(root / name, None, images)])
        for name in ("labels.csv", "labels.tsv")
        if (root / name).is_file()
    ]
    names = [f"metadata{suffix}" for suffix in (".csv", ".jsonl", ".parquet")]
    tables = [(root / name, None, root) for name in names if (root / name).is_file()]
    if tables:
        layouts.append(_Layout([*tables]))
    folders = [path for path in sorted(root.iterdir()) if path.is_dir()]
    parts = [
        (folder / name, part, folder)
        for part in ("train", "validation", "test")
        for folder in folders
        if part_of_name(folder.name) == part
        for name in names
        if (folder / name).is_file()
    ]
    if parts:
        layouts.append(_Layout([*parts]))
    for folder in (root, root / "data"):
        paths = part_files(folder, (".parquet",)) if folder.is_dir() else []
        files = [(path, part_of_file(path), folder) for path in paths]
        if files:
            layouts.append(_Layout([*files], in_parquet=True))
    if not layouts:
        raise UsageError(
            f"{root}: no table of images found; put labels.csv next to images/, metadata.csv, .jsonl or "
            ".parquet next to the images, or train.parquet with the columns image and labels"
        )
    if len(layouts) > 1:
        first, second = (layout.tables[0][0] for layout in layouts[:2])
        raise UsageError(f"{root}: both {first.name} and {second.relative_to(root)}; keep one")
    return layouts[0]


def _read(layout: _Layout) -> list[tuple[UserTable, str | None]]:
    """The tables with the part of all their rows; images inside Parquet are not read."""
    if not layout.in_parquet:
        return [(read_user_table(path), part) for path, part, _ in layout.tables]
    tables = [(read_user_table(path, (_IMAGE_COLUMN,)), part) for path, part, _ in layout.tables]
    for table, _ in tables:
        if (kind := table.skipped.get(_IMAGE_COLUMN)) is None:
            raise UsageError(
                f"{table.path}: no column '{_IMAGE_COLUMN}' with the bytes of images; "
                "add it, or name it so"
            )
        if not holds_images(kind):
            raise UsageError(
                f"{table.path}: column '{_IMAGE_COLUMN}' is {brief(str(kind))}; expected the bytes of "
                "images"
            )
    return tables


def _files(tables: list[tuple[UserTable, str | None]], layout: _Layout) -> dict[Path, str]:
    """The file of each row of the tables, in order, with the row's position for messages."""
    files: dict[Path, str] = {}
    for (table, _), (_, _, folder) in zip(tables, layout.tables, strict=True):
        column = next((name for name in _FILE_COLUMNS if name in table.columns), None)
        if column is None:
            raise UsageError(
                f"{table.path}: no column of file names; name it file_name (columns: "
                f"{brief(', '.join(table.columns), 300)})"
            )
        for row, name in enumerate(table.values(column)):
            path = folder / safe_relative(name, table.where(row))
            if path in files:
                raise UsageError(
                    f"{table.where(row)}: duplicate file '{brief(name)}', already listed in "
                    f"{files[path]}; give each file one row"
                )
            files[path] = table.where(row)
    return files


def _images_in(folder: Path) -> list[Path]:
    return [
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file() and not is_hidden(path, folder)
    ]
