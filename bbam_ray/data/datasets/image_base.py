"""What all data sets of images share: a table of images and labels, decoded once into a common store."""

from __future__ import annotations

import os
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from bbam_ray.config import DatasetOptions
from bbam_ray.data.cache.images import cached_images
from bbam_ray.data.cache.row_file import StoredRows
from bbam_ray.data.datasets.base import Dataset, Part, Samples, ViewSettings
from bbam_ray.data.formats.image_sources import ImageFiles, ImageSource, files_state
from bbam_ray.errors import UsageError, shown

IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"))
_SHOWN = 5  # names in an error message


class ImageOptions(DatasetOptions):
    """Options that every data set of images has."""

    image_size: int = Field(224, ge=32, le=1024, description="Side of the stored images in pixels.")
    unreadable: Literal["error", "skip"] = Field(
        "error", description="Stop with an error if images cannot be read, or skip them."
    )
    links: Literal["inside", "follow"] = Field(
        "inside",
        description="Allow symlinks to files outside the data folder (`follow`) or not (`inside`).",
    )


@dataclass(frozen=True)
class ImageTable:
    """The images of one part, not yet decoded.

    Args:
        images: N encoded images.
        labels: (N, K) uint8.
        label_names: K names.
        is_labeled: (N,) bool, False where nobody has labelled the image; None = all are labelled.
    """

    images: ImageSource
    labels: np.ndarray
    label_names: tuple[str, ...]
    is_labeled: np.ndarray | None = None


class ImageDataset(Dataset):
    """Images (N, 3, S, S) uint8, normalised as ImageNet is."""

    Options: ClassVar[type[DatasetOptions]] = ImageOptions
    views: ClassVar[ViewSettings] = ViewSettings(
        mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), flip=True
    )
    defaults: ClassVar[dict[str, Any]] = {
        "backbone": "resnet50",
        "weights": "IMAGENET1K_V2",
        "labeled_batch": 32,
        "unlabeled_batch": 96,
        "evaluation_batch": 128,
    }
    #: images of each part as published; a difference is reported, not refused
    published_counts: ClassVar[dict[Part, int]] = {}

    @abstractmethod
    def table(self, options: Any, data_dir: Path | None, part: Part) -> ImageTable:
        """Images and labels of one part."""

    @abstractmethod
    def label_files(self, options: Any, data_dir: Path | None) -> list[Path]:
        """Files that say which images there are and what they show."""

    def views_for(self, options: Any) -> ViewSettings:
        """How these images become network inputs."""
        return self.views

    def require(self, root: Path, wanted: list[str], *, size: str, folder: str) -> None:
        """Refuse a folder in which a published data set is not whole, and say how to get it.

        Args:
            root: the folder; ``wanted`` files and folders must be in it.
            size: of the download.
            folder: what to give as --data-dir.
        """
        if missing := [name for name in wanted if not os.path.exists(root / name)]:
            raise UsageError(
                f"data set '{self.name}' is not in {root.resolve()} (missing: {', '.join(missing)}): get "
                f"it with `bbam-ray data download {self.name}` ({size}) and give {folder} as --data-dir; "
                "--dataset digits works right away"
            )

    def check(self, options: Any, data_dir: Path | None) -> None:
        for part in ("train", "test"):
            source = self._table(options, data_dir, part).images
            if isinstance(source, ImageFiles):
                absent = [path for path in source.paths if not os.path.isfile(path)]
                if absent:
                    raise UsageError(
                        f"data set '{self.name}': {len(absent)} of {len(source)} images of the {part} "
                        f"part are missing, the first is {shown(str(absent[0]), 300)}; complete the "
                        "folder"
                    )

    def state(self, options: Any, data_dir: Path | None) -> str:
        images = [self._table(options, data_dir, part).images.state() for part in ("train", "test")]
        return " ".join([files_state(self.label_files(options, data_dir)), *images])

    def _table(self, options: Any, data_dir: Path | None, part: Part) -> ImageTable:
        """``table``, whose images are all below the folder: a list of names comes from elsewhere."""
        table = self.table(options, data_dir, part)
        if options.links == "inside" and isinstance(table.images, ImageFiles):
            outside = table.images.outside()
            if outside is not None:
                raise UsageError(
                    f"data set '{self.name}': {shown(str(outside), 300)} leads out of "
                    f"{table.images.root}; put the image itself there, or allow links with "
                    "--set links=follow"
                )
        return table

    def load(self, options: Any, data_dir: Path | None, part: Part) -> Samples:
        table = self._table(options, data_dir, part)
        stored = cached_images(self.name, table.images, options.image_size)
        kept = self._readable(stored, table.images, options)
        return Samples(
            stored,
            table.labels[kept],
            table.label_names,
            self.views_for(options),
            None if table.is_labeled is None else table.is_labeled[kept],
            [table.images.names[row] for row in kept],
        )

    def _readable(self, stored: StoredRows, images: ImageSource, options: Any) -> np.ndarray:
        """Positions of the images that have a row in the store."""
        unreadable: list[tuple[int, str]] = stored.metadata["unreadable"]
        if unreadable and options.unreadable == "error":
            first = [
                f"{shown(images.names[row])} ({shown(why)})" for row, why in unreadable[:_SHOWN]
            ]
            more = f" and {len(unreadable) - _SHOWN} more" if len(unreadable) > _SHOWN else ""
            raise UsageError(
                f"data set '{self.name}': {len(unreadable)} of {len(images)} images cannot be read: "
                f"{', '.join(first)}{more}; replace them, or leave them out with "
                "--set unreadable=skip"
            )
        return np.setdiff1d(np.arange(len(images)), [row for row, _ in unreadable])
