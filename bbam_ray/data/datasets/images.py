"""``images``: your own images, in one of three layouts.

- ``labels.csv`` (or ``.tsv``) next to a folder ``images/``: a column ``file_name``, and either one 0/1
  column per label or a single column ``labels``;
- Hugging Face folders: ``metadata.csv``, ``.jsonl`` or ``.parquet`` with ``file_name`` and ``labels``, in
  the folder itself or in ``train/`` and ``test/``;
- Parquet: one file, or ``train*.parquet``, ``validation*.parquet``, ``test*.parquet``,
  ``unlabeled*.parquet`` in the folder or its ``data/``, with a column ``image`` (bytes) and ``labels``.

A folder ``unlabeled/`` holds more images, without labels. A column ``split`` may name the part of each
row: train, validation, test or unlabeled. Without a test part, a share of the labelled rows becomes one.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from bbam_ray.config import DatasetOptions
from bbam_ray.data.datasets.base import Part, ViewSettings
from bbam_ray.data.datasets.image_base import ImageDataset, ImageOptions, ImageTable, image_files
from bbam_ray.data.formats.image_layouts import (
    FILE_COLUMNS,
    IMAGE_COLUMN,
    find_layout,
    find_root,
    listed_files,
    read_tables,
)
from bbam_ray.data.formats.image_sources import ImageFiles, ImageSource, ParquetImages
from bbam_ray.data.formats.labels.names import NAMES_FILE
from bbam_ray.data.formats.labels.options import LabelOptions
from bbam_ray.data.formats.labels.reader import read_labels
from bbam_ray.data.formats.labels.result import Labels, with_notes, with_test_part
from bbam_ray.data.formats.part_files import unused_tables
from bbam_ray.errors import UsageError, brief

UNLABELED = "unlabeled"
_TABLES = (".csv", ".tsv", ".jsonl", ".parquet")


class ImagesOptions(ImageOptions, LabelOptions):
    """Options of the data set ``images``."""

    file_column: str = Field(
        "", description="Column of file names in tables of images; empty finds it."
    )
    file_template: str = Field(
        "",
        description="Path of an image, with `{}` in place of the name in the table and relative to the "
        "table's folder: `Images/{}.jpg`.",
    )
    flip: bool = Field(
        True,
        description="Mirror images as augmentation; false if a mirrored image has other labels.",
    )


class Images(ImageDataset):
    """A user's own images."""

    name: ClassVar[str] = "images"
    Options: ClassVar[type[DatasetOptions]] = ImagesOptions
    defaults: ClassVar[dict[str, Any]] = {**ImageDataset.defaults, "labeled_fraction": None}

    def views_for(self, options: ImagesOptions) -> ViewSettings:
        return replace(self.views, flip=options.flip)

    def label_files(self, options: ImagesOptions, data_dir: Path | None) -> list[Path]:
        root = find_root(data_dir)
        tables, names = find_layout(root).paths, _names_file(root)
        return [*tables, names] if names.is_file() else tables

    def tables(self, options: ImagesOptions, data_dir: Path | None) -> dict[Part, ImageTable]:
        root = find_root(data_dir)
        layout = find_layout(root)
        folder = root if root.is_dir() else root.parent
        tables = read_tables(layout)
        # Before the labels: for a table of another kind, the missing file column is the better error.
        files = (
            {}
            if layout.in_parquet
            else listed_files(tables, layout, options.file_column, options.file_template)
        )
        labels = with_test_part(
            read_labels(
                tables,
                options,
                ignored=[name for name in (*FILE_COLUMNS, options.file_column) if name],
                names_file=_names_file(root),
            ),
            options.test_fraction,
        )
        if root.is_dir():
            labels = with_notes(labels, unused_tables(root, layout.paths, _TABLES))
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
                    ParquetImages(paths, IMAGE_COLUMN, chosen, [names[row] for row in chosen]),
                    labels,
                    chosen,
                )
                for part, chosen in rows.items()
            }
        listed = list(files)
        unlisted = sorted(_images_in(folder / UNLABELED)) if root.is_dir() else []
        train = ImageFiles([*(listed[row] for row in rows["train"]), *unlisted], folder)
        test = ImageFiles([listed[row] for row in rows["test"]], folder)
        if missing := (*train.scan.missing, *test.scan.missing):
            path = brief(str(missing[0]), 300)
            row = files[missing[0]]
            held = " (column 'image' holds paths, not the bytes)" if ".parquet row" in row else ""
            raise UsageError(
                f"{row}: there is no file {path}{held}; add the file, or remove the row"
            )
        return {
            "train": _image_table(train, labels, rows["train"], len(unlisted)),
            "test": _image_table(test, labels, rows["test"]),
        }

    def unused(self, options: ImagesOptions, data_dir: Path | None) -> list[Path]:
        root = find_root(data_dir)
        layout = find_layout(root)
        if layout.in_parquet or root.is_file():
            return []
        used = {
            *listed_files(read_tables(layout), layout, options.file_column, options.file_template),
            *_images_in(root / UNLABELED),
        }
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


def _names_file(root: Path) -> Path:
    return (root.parent if root.is_file() else root) / NAMES_FILE


def _images_in(folder: Path) -> list[Path]:
    return image_files(folder)
