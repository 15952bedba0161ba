"""``coco2014``: COCO 2014 (Lin et al., ECCV 2014) as multi-label images, 80 labels.

Layout as published: ``train2014/*.jpg``, ``val2014/*.jpg`` and ``annotations/instances_train2014.json``,
``instances_val2014.json``. An image carries the categories of its objects (crowds included); val2014 is
the test part. Folders with other categories or names are read by ``coco``, with ``read_annotations``.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from pydantic import Field

from bbam_ray.config import DatasetOptions
from bbam_ray.data.cache.label_arrays import cached_arrays
from bbam_ray.data.datasets.base import Part
from bbam_ray.data.datasets.image_base import ImageDataset, ImageOptions, ImageTable
from bbam_ray.data.download.http import RemoteFile
from bbam_ray.data.download.sources import Publication
from bbam_ray.data.formats.file_list import files_state
from bbam_ray.data.formats.image_sources import ImageFiles
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


class Annotations(NamedTuple):
    """The content of an annotation file.

    Args:
        files: (N,) paths of the images, ordered by the images' ids.
        labels: (N, K) uint8, 1 where an image has an object of a category.
        names: (K,) names of the categories, ordered by their ids.
    """

    files: np.ndarray
    labels: np.ndarray
    names: np.ndarray


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
            files, labels, categories = read_annotations(path, self.name)
            names = tuple(map(str, categories))
            if "train" in tables and names != tables["train"].label_names:
                raise UsageError(
                    f"{path}: its categories differ from those of {annotations['train'].name}; {_AGAIN}"
                )
            notes: tuple[str, ...] = ()
            annotated = labels.any(axis=1)
            if not options.keep_unannotated and not annotated.all():
                text = f"{part} images: {np.sum(~annotated)} without annotations are left out"
                notes = (f"{text} (setting keep_unannotated)",)
                files, labels = files[annotated], labels[annotated]
            if not len(files):
                raise UsageError(f"{path}: no image with an annotation; {_AGAIN}")
            paths = [root / _FOLDERS[part] / str(file) for file in files]
            tables[part] = ImageTable(ImageFiles(paths, root), labels, names, notes=notes)
        return tables


def read_annotations(path: Path, dataset: str) -> Annotations:
    """Images and labels of an annotation file.

    Hundreds of megabytes of JSON become a small file in the cache, which all processes read instead.

    Args:
        path: JSON with ``images``, ``annotations`` and ``categories``.
        dataset: whose cache is used.

    Raises:
        UsageError: not such a file, or one that contradicts itself.
    """

    def make() -> dict[str, np.ndarray]:
        return _parse(path)._asdict()

    key = f"{files_state([path])} 2"
    return Annotations(**cached_arrays(dataset, key, make, Annotations._fields))


def _parse(path: Path) -> Annotations:
    try:
        content = parse_json(read_text(path, _AGAIN))
        categories = _by_id(content, "categories", "name")
        images = _by_id(content, "images", "file_name")
        column = {key: index for index, key in enumerate(categories)}
        row = {key: index for index, key in enumerate(images)}
        labels: np.ndarray = np.zeros((len(images), len(categories)), dtype=np.uint8)
        for number, entry in enumerate(content["annotations"], start=1):
            image, category = _key(entry["image_id"]), _key(entry["category_id"])
            if image not in row or category not in column:
                kind = "image_id" if image not in row else "category_id"
                listed = "images" if image not in row else "categories"
                raise ValueError(
                    f"annotation {number} has {kind} {brief(entry[kind])}, which is not in '{listed}'"
                )
            labels[row[image], column[category]] = 1
    except (ValueError, KeyError, TypeError) as error:
        what = str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"
        raise UsageError(
            f"{path}: not an annotation file of COCO ({brief(what, 200)}); correct it, or {_AGAIN}"
        ) from None
    files = [_safe(path, file) for file in images.values()]
    names = [str(name) for name in categories.values()]
    for kind, values in (("file", files), ("category", names)):
        if (double := _double(values)) is not None:
            raise UsageError(
                f"{path}: the {kind} {brief(double)} is listed twice; remove one of them, or {_AGAIN}"
            )
    return Annotations(np.array(files, dtype=str), labels, np.array(names, dtype=str))


def _by_id(content: Any, kind: str, field: str) -> dict[str, Any]:
    """One field of the entries of a list by their id, in the order of the ids."""
    entries = [(entry["id"], _key(entry["id"]), entry[field]) for entry in content[kind]]
    numbers = all(isinstance(number, int) for number, _, _ in entries)
    entries.sort(key=(lambda entry: entry[0]) if numbers else (lambda entry: entry[1]))
    keys = [key for _, key, _ in entries]
    if (double := _double(keys)) is not None:
        raise ValueError(f"id {brief(double)} occurs twice in '{kind}'")
    return {key: value for _, key, value in entries}


def _double(values: list[str]) -> str | None:
    """A text that a list contains more than once."""
    return next((value for value, count in Counter(values).items() if count > 1), None)


def _key(number: Any) -> str:
    """An id for comparison: programs write 7, 7.0 and "7" for the same image."""
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    if isinstance(number, bool) or not isinstance(number, (int, str)):
        raise ValueError(f"id {brief(number)} is neither a whole number nor a text")
    return str(number).strip()


def _safe(path: Path, file: Any) -> str:
    """The name of an image's file, maybe in subfolders, with forward slashes."""
    text = file.replace("\\", "/") if isinstance(file, str) else ""
    parts = text.split("/")
    if not parts[-1] or parts[0] == "" or ".." in parts or "\0" in text or text[1:2] == ":":
        raise UsageError(
            f"{path}: image '{brief(file)}' is not a plain file name, or a path inside the folder of "
            "images; "
            f"correct it, or {_AGAIN}"
        )
    return "/".join(part for part in parts if part != ".")
