"""``voc2012``: PASCAL VOC 2012 classification (Everingham et al., IJCV 2015), 20 labels.

Layout as published: ``JPEGImages/*.jpg`` and ``ImageSets/Main/`` with the image lists ``train.txt`` and
``val.txt`` and for each label ``<label>_train.txt`` and ``<label>_val.txt``, whose lines hold an image
and 1 (shown), -1 (not shown) or 0 (shown only in objects that are marked difficult). The images of
``val.txt`` serve as test part, since the labels of the real one were never published.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from bbam_ray.config import DatasetOptions
from bbam_ray.data.datasets.base import Part
from bbam_ray.data.datasets.image_base import ImageDataset, ImageOptions, ImageTable
from bbam_ray.data.formats.image_sources import ImageFiles
from bbam_ray.data.formats.tables import read_text
from bbam_ray.errors import UsageError, shown

# fmt: off
LABELS = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car",
    "cat", "chair", "cow", "diningtable", "dog", "horse", "motorbike",
    "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)
# fmt: on
DEFAULT_DIR = Path("data/VOCdevkit/VOC2012")
_LISTS: dict[Part, str] = {"train": "train", "test": "val"}


class VocOptions(ImageOptions):
    """Options of the data set ``voc2012``."""

    difficult: Literal["negative", "positive"] = Field(
        "negative",
        description="Value of labels that only occur in difficult objects (0 in the published lists).",
    )


class Voc2012(ImageDataset):
    """Images of PASCAL VOC 2012; the lists train and val are the parts train and test."""

    name: ClassVar[str] = "voc2012"
    Options: ClassVar[type[DatasetOptions]] = VocOptions
    published_counts: ClassVar[dict[Part, int]] = {"train": 5_717, "test": 5_823}
    defaults: ClassVar[dict[str, Any]] = {
        **ImageDataset.defaults,
        "labeled_batch": 2,
        "unlabeled_batch": 30,
    }

    def _lists(self, data_dir: Path | None) -> dict[str, Path]:
        main = _root(data_dir) / "ImageSets" / "Main"
        names = [*_LISTS.values(), *(f"{k}_{part}" for k in LABELS for part in _LISTS.values())]
        return {name: main / f"{name}.txt" for name in names}

    def label_files(self, options: VocOptions, data_dir: Path | None) -> list[Path]:
        return list(self._lists(data_dir).values())

    def check(self, options: VocOptions, data_dir: Path | None) -> None:
        root = _root(data_dir)
        wanted = ["JPEGImages", "ImageSets/Main/train.txt", "ImageSets/Main/val.txt"]
        self.require(root, wanted, size="2 GB", folder="the folder VOCdevkit/VOC2012")
        super().check(options, data_dir)

    def table(self, options: VocOptions, data_dir: Path | None, part: Part) -> ImageTable:
        root, lists, suffix = _root(data_dir), self._lists(data_dir), _LISTS[part]
        images = read_text(lists[suffix], "unpack the archive again").split()
        place = {image: row for row, image in enumerate(images)}
        if not images or len(place) < len(images):
            what = "lists an image twice" if images else "is empty"
            raise UsageError(f"{lists[suffix]}: {what}; unpack the archive again")
        labels: np.ndarray = np.zeros((len(images), len(LABELS)), dtype=np.uint8)
        marks = {"1": 1, "-1": 0, "0": int(options.difficult == "positive")}
        for column, label in enumerate(LABELS):
            path = lists[f"{label}_{suffix}"]
            if not path.is_file():
                raise UsageError(f"{path}: no such file; every label needs one, unpack again")
            seen: set[int] = set()
            lines = read_text(path, "unpack the archive again").splitlines()
            for number, line in enumerate(lines, start=1):
                fields = line.split()
                if not fields:
                    continue
                if len(fields) != 2 or fields[1] not in marks or fields[0] not in place:
                    raise UsageError(
                        f"{path} line {number}: '{shown(line.strip())}' is not an image of "
                        f"{suffix}.txt and 1, 0 or -1; unpack the archive again"
                    )
                row = place[fields[0]]
                labels[row, column] = marks[fields[1]]
                seen.add(row)
            if absent := [image for image, row in place.items() if row not in seen]:
                raise UsageError(
                    f"{path}: says nothing of {len(absent)} images of {suffix}.txt, the first is "
                    f"{shown(absent[0])}; unpack the archive again"
                )
        paths = [root / "JPEGImages" / f"{image}.jpg" for image in images]
        return ImageTable(ImageFiles(paths, root), labels, LABELS)


def _root(data_dir: Path | None) -> Path:
    """The folder VOC2012, whether it was given or one that the archive puts around it."""
    given = data_dir or DEFAULT_DIR
    inner = (given / "VOCdevkit" / "VOC2012", given / "VOC2012")
    return next((folder for folder in inner if os.path.isdir(folder)), given)
