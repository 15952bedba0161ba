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
from bbam_ray.data.download.http import RemoteFile
from bbam_ray.data.download.sources import Publication
from bbam_ray.data.formats.file_list import files_state
from bbam_ray.data.formats.image_sources import ImageFiles
from bbam_ray.data.formats.npz import open_arrays, read_array
from bbam_ray.data.formats.tables import read_text
from bbam_ray.documents import parse_json
from bbam_ray.errors import UsageError, brief

DEFAULT_DIR = Path("data/coco2014")
# images.cocodataset.org has no certificate of its own; this is the same storage under Amazon's.
_COCO = "https://s3.amazonaws.com/images.cocodataset.org"
PUBLICATION = Publication(
    page="https://cocodataset.org/#download",
    terms="The annotations are licensed under Creative Commons Attribution 4.0 by the COCO "
    "Consortium, which does not own the images: Flickr's terms of use apply to those "
    "(cocodataset.org/#termsofuse).",
    archives={
        "annotations": RemoteFile(
            url=f"{_COCO}/annotations/annotations_trainval2014.zip",
            name="annotations_trainval2014.zip",
            size=252_872_794,
            sha256="031296bbc80c45a1d1f76bf9a90ead27e94e99ec629208449507a4917a3bf009",
        ),
        "val2014": RemoteFile(
            url=f"{_COCO}/zips/val2014.zip",
            name="val2014.zip",
            size=6_645_013_297,
            sha256="fe9be816052049c34717e077d9e34aa60814a55679f804cd043e3cbee3b9fde0",
        ),
        "train2014": RemoteFile(
            url=f"{_COCO}/zips/train2014.zip",
            name="train2014.zip",
            size=13_510_573_713,
            sha256="ede4087e640bddba550e090eae701092534b554b42b05ac33f0300b984b31775",
        ),
    },
    unpack_to="coco2014",
    data_dir="coco2014",
    max_bytes=20 * 10**9,
)
_AGAIN = "unpack the archive again"
_FOLDERS: dict[Part, str] = {"train": "train2014", "test": "val2014"}


class CocoOptions(ImageOptions):
    """Options of the data set ``coco2014``."""

    keep_unannotated: bool = Field(
        False, description="Keep images without annotated objects, as images without labels."
    )


class Coco2014(ImageDataset):
    """Images of COCO 2014 with the categories of their objects."""

    name: ClassVar[str] = "coco2014"
    publication: ClassVar[Publication | None] = PUBLICATION
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

    def tables(self, options: CocoOptions, data_dir: Path | None) -> dict[Part, ImageTable]:
        root = data_dir or DEFAULT_DIR
        annotations = dict(zip(_FOLDERS, self.label_files(options, data_dir), strict=True))
        self.require(
            root,
            [*_FOLDERS.values(), *(f"annotations/{path.name}" for path in annotations.values())],
            size="20 GB",
            folder="the folder with train2014/, val2014/ and annotations/",
        )
        tables: dict[Part, ImageTable] = {}
        for part, path in annotations.items():
            files, labels, names = _annotations(path)
            if "train" in tables and names != tables["train"].label_names:
                raise UsageError(
                    f"{path}: its categories differ from those of {annotations['train'].name}; {_AGAIN}"
                )
            if not options.keep_unannotated:
                annotated = labels.any(axis=1)
                files, labels = files[annotated], labels[annotated]
            if not len(files):
                raise UsageError(f"{path}: no image with an annotation; {_AGAIN}")
            paths = [root / _FOLDERS[part] / str(file) for file in files]
            tables[part] = ImageTable(ImageFiles(paths, root), labels, names)
        return tables


def _annotations(path: Path) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """File names (N,), labels (N, K) and label names of an annotation file.

    Hundreds of megabytes of JSON become a small file in the cache, which all processes read instead.
    """
    key = hashlib.sha256(files_state([path]).encode()).hexdigest()[:20]
    small = cache_dir() / Coco2014.name / f"{key}-labels.npz"
    if (annotations := _cached(small)) is None:
        annotations = _parse(path)
        files, labels, names = annotations
        with whole_file(small) as temporary, temporary.open("wb") as handle:
            np.savez(handle, files=files, labels=labels, names=np.array(names))
    files, labels, names = annotations
    return files, labels, tuple(map(str, names))


def _cached(small: Path) -> tuple[np.ndarray, np.ndarray, list[str]] | None:
    """The annotations in the cache; None if the file is missing or damaged."""
    try:
        with open_arrays(small) as archive:
            files, labels, names = (read_array(archive, n) for n in ("files", "labels", "names"))
    except ValueError:
        return None
    return files, labels, names.tolist()


def _parse(path: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    try:
        content = parse_json(read_text(path, _AGAIN))
        categories = sorted((entry["id"], entry["name"]) for entry in content["categories"])
        column = {number: index for index, (number, _) in enumerate(categories)}
        images = sorted((entry["id"], entry["file_name"]) for entry in content["images"])
        row = {number: index for index, (number, _) in enumerate(images)}
        labels: np.ndarray = np.zeros((len(images), len(categories)), dtype=np.uint8)
        for entry in content["annotations"]:
            labels[row[entry["image_id"]], column[entry["category_id"]]] = 1
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{path}: not an annotation file of COCO ({type(error).__name__}: {brief(error)}); {_AGAIN}"
        ) from None
    files, names = [file for _, file in images], [name for _, name in categories]
    for file in files:
        if not isinstance(file, str) or Path(file).name != file or "\0" in file:
            raise UsageError(f"{path}: image '{brief(file)}' is not a plain file name; {_AGAIN}")
    if len(row) < len(images) or len(column) < len(categories):
        raise UsageError(f"{path}: duplicate image or category; {_AGAIN}")
    if len(set(map(str, names))) < len(names):
        raise UsageError(f"{path}: two categories have the same name; {_AGAIN}")
    return np.array(files, dtype=str), labels, [str(name) for name in names]
