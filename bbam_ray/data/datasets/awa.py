"""``awa``: Animals with Attributes 2 (Xian et al., TPAMI 2018), 50 animals with 85 attributes each.

Layout as published: ``JPEGImages/<class>/*.jpg`` next to ``classes.txt``, ``predicates.txt``,
``predicate-matrix-binary.txt``, ``trainclasses.txt`` and ``testclasses.txt``. Every image carries the
attributes of its class; train and test classes are disjoint.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

import numpy as np

from bbam_ray.data.datasets.base import Part
from bbam_ray.data.datasets.image_base import ImageDataset, ImageOptions, ImageTable
from bbam_ray.data.download.http import RemoteFile
from bbam_ray.data.download.sources import Publication
from bbam_ray.data.formats.image_sources import ImageFiles
from bbam_ray.data.formats.tables import read_text
from bbam_ray.data.sampling.composition import CONSTANT_SHARES, Shares
from bbam_ray.errors import UsageError, brief

TABLES = (
    "classes.txt",
    "predicates.txt",
    "predicate-matrix-binary.txt",
    "trainclasses.txt",
    "testclasses.txt",
)
DEFAULT_DIR = Path("data/Animals_with_Attributes2")
PUBLICATION = Publication(
    page="https://cvml.ista.ac.at/AwA2/",
    terms="The images were chosen for licences that allow free use and redistribution; the licence "
    "of each image is in the folder licenses.",
    archives={
        # Holds the tables of AwA2-base.zip as well. No digest from an independent source is known: the
        # length that the server announces must arrive, and unpacking checks the CRC of every file.
        "Animals_with_Attributes2": RemoteFile(
            url="https://cvml.ista.ac.at/AwA2/AwA2-data.zip",
            name="AwA2-data.zip",
            size=None,  # about 13.9 GB
        )
    },
    unpack_to=".",
    data_dir="Animals_with_Attributes2",
    max_bytes=20 * 10**9,
)
_PARTS: tuple[Part, Part] = ("train", "test")
_AGAIN = "unpack the archive again"


class Awa(ImageDataset):
    """Images with the binary attributes of their class."""

    name: ClassVar[str] = "awa"
    publication: ClassVar[Publication | None] = PUBLICATION
    published_counts: ClassVar[dict[Part, int]] = {"train": 30_337, "test": 6_985}
    labeled_shares: ClassVar[Shares] = CONSTANT_SHARES

    def label_files(self, options: ImageOptions, data_dir: Path | None) -> list[Path]:
        return [(data_dir or DEFAULT_DIR) / name for name in TABLES]

    def tables(self, options: ImageOptions, data_dir: Path | None) -> dict[Part, ImageTable]:
        root = data_dir or DEFAULT_DIR
        self.require(
            root,
            [*TABLES, "JPEGImages"],
            size="13 GB, from cvml.ista.ac.at/AwA2",
            folder="the folder with JPEGImages/ and classes.txt",
        )
        classes = {part: _class_list(root, part) for part in _PARTS}
        names, matrix = _attributes(root, classes)
        return {part: _table(root, part, classes[part], names, matrix) for part in _PARTS}


def _table(
    root: Path,
    part: Part,
    classes: list[str],
    names: tuple[str, ...],
    matrix: dict[str, np.ndarray],
) -> ImageTable:
    """All images of the classes of one part, with the attributes of their class."""
    paths: list[Path] = []
    labels: list[np.ndarray] = []
    for animal in classes:
        folder = root / "JPEGImages" / animal
        if not os.path.isdir(folder):
            raise UsageError(
                f"{folder}: no such folder, though {part}classes.txt lists this class; {_AGAIN}"
            )
        images = sorted(path for path in folder.glob("*.jpg") if path.name[0] != ".")
        paths += images
        labels += [matrix[animal]] * len(images)
    if not paths:
        raise UsageError(
            f"{root / 'JPEGImages'}: no .jpg file for any class of {part}classes.txt; {_AGAIN}"
        )
    return ImageTable(ImageFiles(paths, root), np.stack(labels), names)


def _class_list(root: Path, part: str) -> list[str]:
    return read_text(root / f"{part}classes.txt", _AGAIN).split()


def _attributes(
    root: Path, class_lists: dict[Part, list[str]]
) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Attribute names, and the 0/1 attributes of each class; checks the class lists of the parts."""

    def numbered(file: str) -> list[str]:
        lines = read_text(root / file, _AGAIN).splitlines()
        return [line.split()[-1] for line in lines if line.strip()]

    classes, names = numbered("classes.txt"), numbered("predicates.txt")
    for file, listed in (("classes.txt", classes), ("predicates.txt", names)):
        if duplicate := next((name for name in listed if listed.count(name) > 1), None):
            raise UsageError(f"{root / file}: duplicate name '{brief(duplicate)}'; {_AGAIN}")
    table = root / "predicate-matrix-binary.txt"
    rows = [line.split() for line in read_text(table, _AGAIN).splitlines() if line.strip()]
    if len(rows) != len(classes) or any(len(row) != len(names) for row in rows):
        raise UsageError(
            f"{table}: expected {len(classes)} rows of {len(names)} numbers, one row per line of "
            f"classes.txt and one number per line of predicates.txt; {_AGAIN}"
        )
    if any(value not in ("0", "1") for row in rows for value in row):
        raise UsageError(f"{table}: contains values other than 0 and 1; {_AGAIN}")
    matrix = np.array(rows, dtype=np.uint8)
    listed = [animal for animals in class_lists.values() for animal in animals]
    if unknown := [animal for animal in listed if animal not in classes]:
        raise UsageError(f"{root}: class '{brief(unknown[0])}' is not in classes.txt; {_AGAIN}")
    if both := sorted(set(class_lists["train"]) & set(class_lists["test"])):
        raise UsageError(
            f"{root}: class '{brief(both[0])}' is in trainclasses.txt and in testclasses.txt; the "
            "published split has disjoint classes, so unpack the archive again"
        )
    return tuple(names), dict(zip(classes, matrix, strict=True))
