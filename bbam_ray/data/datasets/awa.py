"""``awa``: Animals with Attributes 2 (Xian et al., TPAMI 2018), 50 animals with 85 attributes each.

Layout as published: ``JPEGImages/<class>/*.jpg`` beside ``classes.txt``, ``predicates.txt``,
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
from bbam_ray.data.formats.image_sources import ImageFiles
from bbam_ray.data.formats.tables import read_text
from bbam_ray.errors import UsageError, shown

TABLES = (
    "classes.txt",
    "predicates.txt",
    "predicate-matrix-binary.txt",
    "trainclasses.txt",
    "testclasses.txt",
)
DEFAULT_DIR = Path("data/Animals_with_Attributes2")
_AGAIN = "unpack the archive again"


class Awa(ImageDataset):
    """Images with the binary attributes of their class."""

    name: ClassVar[str] = "awa"
    published_counts: ClassVar[dict[Part, int]] = {"train": 30_337, "test": 6_985}

    def label_files(self, options: ImageOptions, data_dir: Path | None) -> list[Path]:
        return [(data_dir or DEFAULT_DIR) / name for name in TABLES]

    def check(self, options: ImageOptions, data_dir: Path | None) -> None:
        root = data_dir or DEFAULT_DIR
        self.require(
            root,
            [*TABLES, "JPEGImages"],
            size="13 GB, from cvml.ista.ac.at/AwA2",
            folder="the folder that holds JPEGImages/ and classes.txt",
        )
        super().check(options, data_dir)

    def table(self, options: ImageOptions, data_dir: Path | None, part: Part) -> ImageTable:
        root = data_dir or DEFAULT_DIR
        names, matrix = _attributes(root)
        paths: list[Path] = []
        labels: list[np.ndarray] = []
        for animal in _class_list(root, part):
            folder = root / "JPEGImages" / animal
            if not os.path.isdir(folder):
                raise UsageError(
                    f"{folder}: no such folder, though {part}classes.txt lists this class; unpack the "
                    "archive again"
                )
            images = sorted(folder.glob("*.jpg"))
            paths += images
            labels += [matrix[animal]] * len(images)
        if not paths:
            raise UsageError(
                f"{root / 'JPEGImages'}: no .jpg file for any class of {part}classes.txt"
            )
        return ImageTable(ImageFiles(paths, root), np.stack(labels), names)


def _class_list(root: Path, part: str) -> list[str]:
    return read_text(root / f"{part}classes.txt", _AGAIN).split()


def _attributes(root: Path) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Attribute names and the binary attribute row of each class."""

    def numbered(file: str) -> list[str]:
        lines = read_text(root / file, _AGAIN).splitlines()
        return [line.split()[-1] for line in lines if line.strip()]

    classes, names = numbered("classes.txt"), numbered("predicates.txt")
    for file, given in (("classes.txt", classes), ("predicates.txt", names)):
        if twice := next((name for name in given if given.count(name) > 1), None):
            raise UsageError(f"{root / file}: names '{shown(twice)}' twice; {_AGAIN}")
    table = root / "predicate-matrix-binary.txt"
    rows = [line.split() for line in read_text(table, _AGAIN).splitlines() if line.strip()]
    if len(rows) != len(classes) or any(len(row) != len(names) for row in rows):
        raise UsageError(
            f"{table}: expected {len(classes)} rows of {len(names)} numbers, one row per line of "
            "classes.txt and one number per line of predicates.txt"
        )
    if any(value not in ("0", "1") for row in rows for value in row):
        raise UsageError(f"{table}: contains something else than 0 and 1")
    matrix = np.array(rows, dtype=np.uint8)
    lists = {part: _class_list(root, part) for part in ("train", "test")}
    unknown = [animal for names_ in lists.values() for animal in names_ if animal not in classes]
    if unknown:
        raise UsageError(f"{root}: class '{shown(unknown[0])}' is not in classes.txt")
    if both := sorted(set(lists["train"]) & set(lists["test"])):
        raise UsageError(
            f"{root}: class '{shown(both[0])}' is in trainclasses.txt and in testclasses.txt; the "
            "published split has disjoint classes, so restore the files"
        )
    return tuple(names), dict(zip(classes, matrix, strict=True))
