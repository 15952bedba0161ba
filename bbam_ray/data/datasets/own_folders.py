"""What ``voc`` and ``coco`` share: options, and the division of a user's images into parts."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from bbam_ray.data.datasets.base import Part, ViewSettings
from bbam_ray.data.datasets.image_base import ImageDataset, ImageOptions, ImageTable, image_files
from bbam_ray.data.formats.image_sources import ImageFiles
from bbam_ray.data.formats.labels.result import Labels, with_test_part
from bbam_ray.errors import UsageError


class OwnFolderOptions(ImageOptions):
    """Options of ``voc`` and ``coco``."""

    test_fraction: float = Field(
        0.2,
        gt=0,
        lt=1,
        description="Share of the labelled images that becomes the test part if the folder names none.",
    )
    flip: bool = Field(
        True,
        description="Mirror images as augmentation; false if a mirrored image has other labels.",
    )


@dataclass(frozen=True)
class OwnImages:
    """All images of a folder.

    Args:
        paths: N files.
        labels: (N, K) uint8; zero in rows that are not labelled.
        is_labeled: (N,) bool.
        test: (N,) bool, the test part; none = a share of the labelled images becomes it.
        names: K label names.
        notes: as in ``Samples``.
    """

    paths: Sequence[Path]
    labels: np.ndarray
    is_labeled: np.ndarray
    test: np.ndarray
    names: tuple[str, ...]
    notes: tuple[str, ...]


class OwnFolder(ImageDataset):
    """The base of ``voc`` and ``coco``: a new one implements ``label_files`` and ``read``."""

    unused_advice: ClassVar[str] = "list them, or move them out of the folder"
    defaults: ClassVar[dict[str, Any]] = {**ImageDataset.defaults, "labeled_fraction": None}

    @abstractmethod
    def read(self, options: Any, data_dir: Path) -> OwnImages:
        """All images and labels below a folder that exists."""

    def views_for(self, options: Any) -> ViewSettings:
        return replace(self.views, flip=options.flip)

    def root(self, data_dir: Path | None) -> Path:
        """The data folder, or a UsageError."""
        if data_dir is None:
            raise UsageError(
                f"data set '{self.name}' needs --data-dir: the folder with your images"
            )
        if not os.path.exists(data_dir):
            raise UsageError(f"--data-dir {data_dir}: no such folder or file")
        return data_dir

    def tables(self, options: Any, data_dir: Path | None) -> dict[Part, ImageTable]:
        folder = self.root(data_dir)
        images = self.read(options, folder)
        labels = Labels(images.labels, images.is_labeled, images.names, images.test)
        notes = images.notes
        if not labels.test.any():
            labels = with_test_part(labels, options.test_fraction)
            share = f"{labels.test.sum()} of the {images.is_labeled.sum()} labelled images"
            notes = (*notes, f"{share} are the test part (setting test_fraction)")
        root = folder.parent if folder.is_file() else folder
        tables: dict[Part, ImageTable] = {}
        rows_of: dict[Part, np.ndarray] = {
            "train": np.flatnonzero(~labels.test),
            "test": np.flatnonzero(labels.test),
        }
        for part, rows in rows_of.items():
            is_labeled = labels.is_labeled[rows]
            tables[part] = ImageTable(
                ImageFiles([images.paths[row] for row in rows], root),
                labels.labels[rows],
                labels.names,
                None if is_labeled.all() else is_labeled,
                notes=notes,
            )
        return tables

    def unused(self, options: Any, data_dir: Path | None) -> list[Path]:
        folder = self.root(data_dir)
        used = set(self.read(options, folder).paths)
        root = folder.parent if folder.is_file() else folder
        return sorted(path for path in image_files(root) if path not in used)
