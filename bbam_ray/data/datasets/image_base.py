"""The base of all data sets of images: a table of images and labels, decoded once into the cache."""

from __future__ import annotations

import os
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator

from bbam_ray.config import DatasetOptions
from bbam_ray.data.cache.images import cached_images
from bbam_ray.data.cache.row_file import StoredRows
from bbam_ray.data.datasets.base import Dataset, Part, Samples, ViewSettings
from bbam_ray.data.datasets.view_options import MirroredViewOptions
from bbam_ray.data.formats.file_list import files_state
from bbam_ray.data.formats.image_range import AUTO, parse_range
from bbam_ray.data.formats.image_sources import ImageFiles, ImageSource
from bbam_ray.data.formats.labels.result import Reading
from bbam_ray.errors import UsageError, brief
from bbam_ray.pretrained_images import DEFAULT, image_input, is_timm

IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"))
_SHOWN = 5  # names in an error message


class ImageOptions(MirroredViewOptions):
    """Options of every data set of images."""

    image_size: int = Field(
        224,
        ge=32,
        le=1024,
        description="Side of the stored images in pixels; for a backbone `timm:NAME` its own is the "
        "default.",
    )
    interpolation: Literal["bilinear", "bicubic"] = Field(
        "bilinear",
        description="Interpolation when images are resized; for a backbone `timm:NAME` its own is the "
        "default.",
    )
    unreadable: Literal["error", "skip"] = Field(
        "error", description="Stop with an error if images cannot be read, or skip them."
    )
    links: Literal["inside", "follow"] = Field(
        "inside",
        description="Allow symlinks to files outside the data folder (`follow`) or not (`inside`).",
    )
    image_range: str = Field(
        AUTO,
        description="Black and white of images with 16 or 32 bits per pixel, such as `0,4095`; `auto` is "
        "the range of their type from 0, for floats 0 to 1.",
    )

    @field_validator("image_range")
    @classmethod
    def _range(cls, text: str) -> str:
        parse_range(text)
        return text


def image_files(folder: Path) -> list[Path]:
    """All images below a folder, without hidden files and folders and what archives of macOS add."""

    def hidden(path: Path) -> bool:
        parts = path.relative_to(folder).parts
        return any(part.startswith(".") or part == "__MACOSX" for part in parts)

    return [
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES and not hidden(path) and path.is_file()
    ]


@dataclass(frozen=True)
class ImageTable:
    """The images of one part, not yet decoded.

    Args:
        images: N encoded images.
        labels: (N, K) uint8.
        label_names: K names.
        is_labeled: (N,) bool, False for unlabelled images; None = all are labelled.
        is_validation, reading: as in ``Samples``.
        notes: as in ``Samples``.
    """

    images: ImageSource
    labels: np.ndarray
    label_names: tuple[str, ...]
    is_labeled: np.ndarray | None = None
    is_validation: np.ndarray | None = None
    reading: Reading | None = None
    notes: tuple[str, ...] = ()


class ImageDataset(Dataset):
    """Images (N, 3, S, S) uint8, normalised as ImageNet is unless the setting ``normalize`` is false.

    A new data set of images implements ``label_files`` and ``tables``.
    """

    Options: ClassVar[type[DatasetOptions]] = ImageOptions
    views: ClassVar[ViewSettings] = ViewSettings(
        mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), flip=True
    )
    #: what to do with images that ``unused`` returns
    unused_advice: ClassVar[str] = "move them into unlabeled/ to train on them"
    defaults: ClassVar[dict[str, Any]] = {
        "backbone": "resnet50",
        "weights": "IMAGENET1K_V2",
        "labeled_batch": 32,
        "unlabeled_batch": 96,
        "evaluation_batch": 128,
    }

    def complete(self, values: dict[str, Any]) -> dict[str, Any]:
        """Images of the size and interpolation that a backbone of timm was trained with.

        Weights that only torchvision has, the default, become those that timm names.
        """
        if not is_timm(backbone := values.get("backbone")):
            return values
        if values.get("weights") == self.defaults.get("weights"):
            values = values | {"weights": DEFAULT}
        if {"image_size", "interpolation"} <= values.keys():
            return values
        own = image_input(str(backbone), str(values.get("weights", "none")))
        return {"image_size": own.size, "interpolation": own.interpolation} | values

    @abstractmethod
    def label_files(self, options: Any, data_dir: Path | None) -> list[Path]:
        """The files that list images and labels; part of ``state``."""

    @abstractmethod
    def tables(self, options: Any, data_dir: Path | None) -> dict[Part, ImageTable]:
        """Images and labels of both parts, from one reading of the label files.

        Raises:
            UsageError: files are missing (see ``require``) or not in the expected form.
        """

    def views_for(self, options: Any) -> ViewSettings:
        """How these images become network inputs, apart from what all data sets of images have."""
        return self.views

    def unused(self, options: Any, data_dir: Path | None) -> list[Path]:
        """Images in the data folder that belong to neither part; ``data check`` reports them."""
        return []

    def require(self, root: Path, wanted: list[str], *, size: str, folder: str) -> None:
        """Check that a published data set is complete.

        Args:
            root: the data folder.
            wanted: files and folders that must be in it.
            size: of the download, for the message.
            folder: description of the folder that --data-dir expects.

        Raises:
            UsageError: something is missing; the message says how to get it.
        """
        if missing := [name for name in wanted if not os.path.exists(root / name)]:
            raise UsageError(
                f"data set '{self.name}' is not in {root.resolve()} (missing: {', '.join(missing)}): get "
                f"it with `bbam-ray data download {self.name}` ({size}) and give {folder} as --data-dir; "
                "--dataset digits needs no download"
            )

    def checked_tables(self, options: Any, data_dir: Path | None) -> dict[Part, ImageTable]:
        """``tables`` whose image files exist and, unless links are followed, are in the data folder."""
        tables = self.tables(options, data_dir)
        for part, table in tables.items():
            if isinstance(table.images, ImageFiles):
                self._check_files(table.images, part, options)
        return tables

    def _check_files(self, images: ImageFiles, part: Part, options: Any) -> None:
        if options.links == "inside" and (outside := images.scan.outside) is not None:
            raise UsageError(
                f"data set '{self.name}': {brief(str(outside), 300)} is a path or symlink to a file "
                f"outside {images.root}; put the image itself there, or allow symlinks with "
                "--set links=follow"
            )
        if missing := images.scan.missing:
            raise UsageError(
                f"data set '{self.name}': {len(missing)} of {len(images)} images of the {part} part are "
                f"missing, the first is {brief(str(missing[0]), 300)}; complete the folder"
            )

    def state(self, options: Any, data_dir: Path | None) -> str:
        tables = self.checked_tables(options, data_dir)
        images = [table.images.state() for table in tables.values()]
        return " ".join([files_state(self.label_files(options, data_dir)), *images])

    def load(self, options: Any, data_dir: Path | None, part: Part) -> Samples:
        table = self.checked_tables(options, data_dir)[part]
        stored = cached_images(
            self.name,
            table.images,
            options.image_size,
            options.image_range,
            options.interpolation,
        )
        readable = self._readable(stored, table.images, options)
        return Samples(
            stored,
            table.labels[readable],
            table.label_names,
            options.applied(self.views_for(options)),
            None if table.is_labeled is None else table.is_labeled[readable],
            [table.images.names[row] for row in readable],
            None if table.is_validation is None else table.is_validation[readable],
            table.reading,
            notes=(*table.notes, *_decoding_notes(stored, table.images, part)),
        )

    def _readable(self, stored: StoredRows, images: ImageSource, options: Any) -> np.ndarray:
        """Positions of the images that could be decoded, and so have a row in the cache."""
        unreadable: list[tuple[int, str]] = stored.metadata["unreadable"]
        if unreadable and options.unreadable == "error":
            first = [
                f"{brief(images.names[row])} ({brief(why)})" for row, why in unreadable[:_SHOWN]
            ]
            more = f" and {len(unreadable) - _SHOWN} more" if len(unreadable) > _SHOWN else ""
            raise UsageError(
                f"data set '{self.name}': {len(unreadable)} of {len(images)} images cannot be read: "
                f"{', '.join(first)}{more}; replace them, or leave them out with "
                "--set unreadable=skip"
            )
        return np.setdiff1d(np.arange(len(images)), [row for row, _ in unreadable])


def _decoding_notes(stored: StoredRows, images: ImageSource, part: Part) -> list[str]:
    """What decoding did to images that are not plain, with the number of images."""
    return [
        f"{part} images: {count} x {note}; the first is {brief(images.names[first])}"
        for note, (count, first) in stored.metadata["notes"].items()
    ]
