"""``coco2014``: COCO 2014 (Lin et al., ECCV 2014) as multi-label images, 80 labels.

Layout as published: ``train2014/*.jpg``, ``val2014/*.jpg`` and ``annotations/instances_train2014.json``,
``instances_val2014.json``. An image carries the categories of its objects; val2014 serves as test part.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from bbam_ray.config import DatasetOptions
from bbam_ray.data.cache.folder import cache_dir, whole_file
from bbam_ray.data.datasets.base import Part
from bbam_ray.data.datasets.image_base import ImageDataset, ImageOptions, ImageTable
from bbam_ray.data.formats.image_sources import ImageFiles, files_state
from bbam_ray.data.formats.npz import open_arrays, read_array
from bbam_ray.data.formats.tables import read_text
from bbam_ray.documents import parse_json
from bbam_ray.errors import UsageError, shown

DEFAULT_DIR = Path("data/coco2014")
_FOLDERS: dict[Part, str] = {"train": "train2014", "test": "val2014"}


class CocoOptions(ImageOptions):
    """Options of the data set ``coco2014``."""

    keep_unannotated: bool = Field(
        False, description="Keep images without annotated objects, as images without labels."
    )


class Coco2014(ImageDataset):
    """Images of COCO 2014 with the categories of their objects."""

    name: ClassVar[str] = "coco2014"
    Options: ClassVar[type[DatasetOptions]] = CocoOptions
    published_counts: ClassVar[dict[Part, int]] = {"train": 82_081, "test": 40_137}
    defaults: ClassVar[dict[str, Any]] = {
        **ImageDataset.defaults,
        "labeled_batch": 4,
        "unlabeled_batch": 60,
    }

    def label_files(self, options: CocoOptions, data_dir: Path | None) -> list[Path]:
        root = data_dir or DEFAULT_DIR
        return [root / "annotations" / f"instances_{name}.json" for name in _FOLDERS.values()]

    def check(self, options: CocoOptions, data_dir: Path | None) -> None:
        root = data_dir or DEFAULT_DIR
        files = [f"annotations/{path.name}" for path in self.label_files(options, data_dir)]
        self.require(
            root,
            [*_FOLDERS.values(), *files],
            size="20 GB",
            folder="the folder that holds train2014/, val2014/ and annotations/",
        )
        super().check(options, data_dir)

    def table(self, options: CocoOptions, data_dir: Path | None, part: Part) -> ImageTable:
        root = data_dir or DEFAULT_DIR
        train, test = self.label_files(options, data_dir)
        files, labels, names = _annotations(train if part == "train" else test)
        expected = names if part == "train" else _annotations(train)[2]
        if names != expected:
            raise UsageError(f"{test}: its categories are not those of {train.name}; unpack again")
        if not options.keep_unannotated:
            annotated = labels.any(axis=1)
            files, labels = files[annotated], labels[annotated]
        if not len(files):
            raise UsageError(f"{train if part == 'train' else test}: no image with an annotation")
        paths = [root / _FOLDERS[part] / str(file) for file in files]
        return ImageTable(ImageFiles(paths, root), labels, names)


def _annotations(path: Path) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """File names (N,), labels (N, K) and label names of an annotation file.

    Hundreds of megabytes of JSON become a small file in the cache, which every process reads instead.
    """
    key = hashlib.sha256(files_state([path]).encode()).hexdigest()[:20]
    small = cache_dir() / Coco2014.name / f"{key}-labels.npz"
    if (found := _kept(small)) is None:
        found = _parse(path)
        files, labels, names = found
        with whole_file(small) as temporary, temporary.open("wb") as handle:
            np.savez(handle, files=files, labels=labels, names=np.array(names))
    return found[0], found[1], tuple(map(str, found[2]))


def _kept(small: Path) -> tuple[np.ndarray, np.ndarray, list[str]] | None:
    """What is in the cache; None where nothing is, or nothing that is whole."""
    try:
        with open_arrays(small) as archive:
            files, labels, names = (read_array(archive, n) for n in ("files", "labels", "names"))
    except ValueError:
        return None
    return files, labels, names.tolist()


def _parse(path: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    try:
        content = parse_json(read_text(path, "unpack the archive again"))
        categories = sorted((entry["id"], entry["name"]) for entry in content["categories"])
        column = {number: place for place, (number, _) in enumerate(categories)}
        images = sorted((entry["id"], entry["file_name"]) for entry in content["images"])
        row = {number: place for place, (number, _) in enumerate(images)}
        labels: np.ndarray = np.zeros((len(images), len(categories)), dtype=np.uint8)
        for entry in content["annotations"]:
            labels[row[entry["image_id"]], column[entry["category_id"]]] = 1
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{path}: not an annotation file of COCO ({type(error).__name__}: {shown(error)}); unpack "
            "the archive again"
        ) from None
    files, names = [file for _, file in images], [name for _, name in categories]
    for file in files:
        if not isinstance(file, str) or Path(file).name != file or "\0" in file:
            raise UsageError(f"{path}: image '{shown(file)}' is not a plain file name")
    if len(row) < len(images) or len(column) < len(categories):
        raise UsageError(f"{path}: holds an image or category twice; unpack the archive again")
    if len(set(map(str, names))) < len(names):
        raise UsageError(f"{path}: two categories of one name; unpack the archive again")
    return np.array(files, dtype=str), labels, [str(name) for name in names]
