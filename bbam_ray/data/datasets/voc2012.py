"""``voc2012``: PASCAL VOC 2012 classification (Everingham et al., IJCV 2015), 20 labels.

Layout as published: ``JPEGImages/*.jpg`` and ``ImageSets/Main/`` with the image lists ``train.txt`` and
``val.txt`` and for each label ``<label>_train.txt`` and ``<label>_val.txt``, whose lines hold an image
and 1 (present), -1 (absent) or 0 (present only in objects that are marked difficult). The images of
``val.txt`` are the test part, since the labels of the original test part were never published. Other VOC
folders are read by ``voc``, with the functions for lists of this file.
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
from bbam_ray.data.download.http import RemoteFile
from bbam_ray.data.download.sources import Publication
from bbam_ray.data.formats.image_sources import ImageFiles
from bbam_ray.data.formats.tables import read_text
from bbam_ray.errors import UsageError, brief

# fmt: off
LABELS = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car",
    "cat", "chair", "cow", "diningtable", "dog", "horse", "motorbike",
    "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)
# fmt: on
DEFAULT_DIR = Path("data/VOCdevkit/VOC2012")
PUBLICATION = Publication(
    page="https://www.robots.ox.ac.uk/~vgg/projects/pascal/VOC/voc2012/",
    terms="The images come from Flickr, and its terms of use apply (www.flickr.com/help/terms).",
    archives={
        "VOCdevkit": RemoteFile(
            url="https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
            name="VOCtrainval_11-May-2012.tar",
            size=1_999_639_040,
            sha256="e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb",
            md5="6cd6e144f989b92b3379bac3b3de84fd",
        )
    },
    unpack_to=".",
    data_dir="VOCdevkit/VOC2012",
    max_bytes=3 * 10**9,
)
_AGAIN = "unpack the archive again"
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
    publication: ClassVar[Publication | None] = PUBLICATION
    Options: ClassVar[type[DatasetOptions]] = VocOptions
    published_counts: ClassVar[dict[Part, int]] = {"train": 5_717, "test": 5_823}
    defaults: ClassVar[dict[str, Any]] = {
        **ImageDataset.defaults,
        "labeled_batch": 2,
        "unlabeled_batch": 30,
    }

    def label_files(self, options: VocOptions, data_dir: Path | None) -> list[Path]:
        names = [*_LISTS.values(), *(f"{k}_{part}" for k in LABELS for part in _LISTS.values())]
        return [list_file(_root(data_dir), name) for name in names]

    def tables(self, options: VocOptions, data_dir: Path | None) -> dict[Part, ImageTable]:
        root = _root(data_dir)
        wanted = ["JPEGImages", "ImageSets/Main/train.txt", "ImageSets/Main/val.txt"]
        self.require(root, wanted, size="2 GB", folder="the folder VOCdevkit/VOC2012")
        return {part: _table(root, suffix, options) for part, suffix in _LISTS.items()}


def list_file(root: Path, name: str) -> Path:
    return root / "ImageSets" / "Main" / f"{name}.txt"


def _table(root: Path, suffix: str, options: VocOptions) -> ImageTable:
    """Images of one list and their labels; ``suffix`` is its name, train or val."""
    row_of = read_image_list(list_file(root, suffix))
    images = list(row_of)
    labels: np.ndarray = np.zeros((len(images), len(LABELS)), dtype=np.uint8)
    for column, label in enumerate(LABELS):
        path = list_file(root, f"{label}_{suffix}")
        read_label_list(path, suffix, row_of, options.difficult, labels[:, column])
    paths = [root / "JPEGImages" / f"{image}.jpg" for image in images]
    return ImageTable(ImageFiles(paths, root), labels, LABELS)


def read_image_list(path: Path) -> dict[str, int]:
    """The images of a list and their positions in it.

    Raises:
        UsageError: no such file, or an empty list, or an image that occurs twice.
    """
    images = read_text(path, _AGAIN).split()
    row_of = {image: row for row, image in enumerate(images)}
    if not images or len(row_of) < len(images):
        problem = "duplicate image" if images else "is empty"
        raise UsageError(f"{path}: {problem}; {_AGAIN}")
    return row_of


def read_label_list(
    path: Path, suffix: str, row_of: dict[str, int], difficult: str, values: np.ndarray
) -> None:
    """Read the list of one label into ``values`` (N,); it must name every image.

    Args:
        path: lines of an image and 1, -1 or 0.
        suffix: name of the list of images that ``row_of`` has.
        row_of: image to row.
        difficult: meaning of 0, see ``VocOptions``.
        values: written in place, 0 or 1.

    Raises:
        UsageError: no such file, a line of another form, or an image that is not named.
    """
    marks = {"1": 1, "-1": 0, "0": int(difficult == "positive")}
    if not path.is_file():
        raise UsageError(
            f"{path}: no such file; every label needs one, so {_AGAIN}, or use --dataset voc for a folder "
            "with labels of its own"
        )
    named: set[int] = set()
    for number, line in enumerate(read_text(path, _AGAIN).splitlines(), start=1):
        fields = line.split()
        if not fields:
            continue
        if len(fields) != 2 or fields[1] not in marks or fields[0] not in row_of:
            raise UsageError(
                f"{path} line {number}: '{brief(line.strip())}' is not an image of {suffix}.txt followed "
                f"by 1, 0 or -1; {_AGAIN}"
            )
        row = row_of[fields[0]]
        values[row] = marks[fields[1]]
        named.add(row)
    if absent := [image for image, row in row_of.items() if row not in named]:
        raise UsageError(
            f"{path}: no line for {len(absent)} images of {suffix}.txt, the first is "
            f"{brief(absent[0])}; {_AGAIN}"
        )


def _root(data_dir: Path | None) -> Path:
    """The folder VOC2012: the given one, or below it where the archive has unpacked it."""
    root = data_dir or DEFAULT_DIR
    inner = (root / "VOCdevkit" / "VOC2012", root / "VOC2012")
    return next((folder for folder in inner if os.path.isdir(folder)), root)
