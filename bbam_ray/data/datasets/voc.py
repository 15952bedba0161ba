"""``voc``: images in the layout of PASCAL VOC with labels of their own, VOC2007 among them.

``JPEGImages/`` holds the images, and the labels are in ``ImageSets/Main/<label>_<list>.txt`` (1 present,
-1 absent, 0 only in difficult objects) or, without such lists, in ``Annotations/<image>.xml``. The labels
are those that occur there. Lists of images in ``ImageSets/Main/`` name the parts:

- ``test.txt`` is the test part if its images have labels, ``trainval.txt`` (or ``train.txt`` with
  ``val.txt``) the training part;
- without it, ``val.txt`` is the test part and ``train.txt`` the training part, as in ``voc2012``;
- otherwise a stratified share of the images becomes the test part. Without any list, all images are used.

An image of the training part without annotation is not labelled.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from bbam_ray.config import DatasetOptions
from bbam_ray.data.cache.label_arrays import cached_arrays
from bbam_ray.data.datasets.own_folders import OwnFolder, OwnFolderOptions, OwnImages
from bbam_ray.data.datasets.voc2012 import list_file, read_image_list, read_label_list
from bbam_ray.data.datasets.voc_layout import (
    ANNOTATIONS,
    IMAGES,
    LISTS,
    MAIN,
    Lists,
    annotations_of,
    bare_name,
    files_by_name,
    image_paths,
    label_lists_of,
    parts_of,
    voc_folder,
)
from bbam_ray.data.formats.file_list import files_state
from bbam_ray.data.formats.voc_annotations import ABSENT, DIFFICULT, PRESENT, read_marks
from bbam_ray.errors import UsageError, brief


class VocFolderOptions(OwnFolderOptions):
    """Options of the data set ``voc``."""

    difficult: Literal["negative", "positive"] = Field(
        "negative",
        description="Value of labels that only occur in difficult objects (0 in lists).",
    )


class Voc(OwnFolder):
    """A user's images in VOC's layout."""

    name: ClassVar[str] = "voc"
    Options: ClassVar[type[DatasetOptions]] = VocFolderOptions

    def label_files(self, options: VocFolderOptions, data_dir: Path | None) -> list[Path]:
        root = voc_folder(self.root(data_dir))
        return [*sorted((root / MAIN).glob("*.txt")), *annotations_of(root).values()]

    def read(self, options: VocFolderOptions, data_dir: Path) -> OwnImages:
        root = voc_folder(data_dir)
        label_lists, annotations = label_lists_of(root), annotations_of(root)
        lists: Lists = {
            name: list(read_image_list(path))
            for name in LISTS
            if (path := list_file(root, name)).is_file()
        }
        notes: list[str] = []
        if label_lists:
            listed = {name for has in label_lists.values() for name in has}
            train, test = parts_of(root, lists, listed.__contains__, notes)
            partial = [k for k, has in label_lists.items() if not {*train, *test} <= has]
            if not partial or not annotations:
                return self._from_lists(root, lists, (train, test), label_lists, options, notes)
            notes[:] = [f"no list of {_some(partial)} for every part, so its lists are not used"]
        if not annotations:
            raise UsageError(
                f"{root}: neither {MAIN}/LABEL_train.txt nor {ANNOTATIONS}/IMAGE.xml; add the labels"
            )
        return self._from_annotations(root, lists, annotations, options, notes)

    def _from_lists(
        self,
        root: Path,
        lists: Lists,
        parts: tuple[list[str], list[str]],
        label_lists: dict[str, set[str]],
        options: VocFolderOptions,
        notes: list[str],
    ) -> OwnImages:
        """Images and labels if every label has lists."""
        train, test = parts
        names = tuple(label for label, has in label_lists.items() if {*train, *test} <= has)
        if partial := [label for label in label_lists if label not in names]:
            notes.append(f"left out, as they have no list for every part: {_some(partial)}")
        blocks, images = [], []
        for name in (*train, *test):
            row_of = {image: row for row, image in enumerate(lists[name])}
            values: np.ndarray = np.zeros((len(row_of), len(names)), dtype=np.uint8)
            for column, label in enumerate(names):
                path = list_file(root, f"{label}_{name}")
                read_label_list(path, name, row_of, options.difficult, values[:, column])
            blocks.append(values)
            images += lists[name]
        is_test = np.repeat([name in test for name in (*train, *test)], list(map(len, blocks)))
        notes.append(_summary(f"{MAIN}/LABEL_*.txt", names, train, test))
        is_labeled: np.ndarray = np.ones(len(images), dtype=bool)
        paths = image_paths(root, images)
        return OwnImages(paths, np.concatenate(blocks), is_labeled, is_test, names, tuple(notes))

    def _from_annotations(
        self,
        root: Path,
        lists: Lists,
        annotations: dict[str, Path],
        options: VocFolderOptions,
        notes: list[str],
    ) -> OwnImages:
        """Images and labels if each image has an XML file."""
        key = f"1 {files_state(annotations.values())}"
        stored = cached_arrays(
            self.name, key, lambda: read_marks(annotations), ("images", "names", "marks")
        )
        row_of = {image: row for row, image in enumerate(stored["images"].tolist())}
        train: list[str] = []
        test: list[str] = []
        if lists:
            train, test = parts_of(
                root, lists, lambda name: any(bare_name(i) in row_of for i in lists[name]), notes
            )
            images = [image for name in (*train, *test) for image in lists[name]]
        else:
            images = list(files_by_name(root))
        is_test = (
            np.arange(len(images)) >= sum(len(lists[name]) for name in train) if test else None
        )
        rows = np.array([row_of.get(bare_name(image), -1) for image in images])
        is_labeled = rows >= 0
        test_rows: np.ndarray = np.zeros(len(images), bool) if is_test is None else is_test
        if bad := np.flatnonzero(test_rows & ~is_labeled).tolist():
            raise UsageError(
                f"{list_file(root, test[0])}: no {ANNOTATIONS}/{brief(images[bad[0]])}.xml, and none for "
                f"{len(bad)} of its images; add them, or take the images out of the list"
            )
        if not is_labeled.any():
            raise UsageError(
                f"{root}: no image in {IMAGES}/ has an annotation of its name in {ANNOTATIONS}/; give "
                "both the same names"
            )
        marks = np.where(is_labeled[:, None], stored["marks"][rows], ABSENT)
        occurs = (marks != ABSENT).any(axis=0)
        positive = (PRESENT, DIFFICULT) if options.difficult == "positive" else (PRESENT,)
        labels = np.isin(marks[:, occurs], positive).astype(np.uint8)
        names = tuple(stored["names"][occurs].tolist())
        notes.append(_summary(f"{ANNOTATIONS}/*.xml", names, train, test))
        if count := int(np.sum(~is_labeled)):
            first = brief(images[int(np.argmin(is_labeled))])
            notes.append(
                f"{count} images without annotation are not labelled; the first is {first}"
            )
        if not lists and (unmatched := len(row_of) - int(is_labeled.sum())):
            notes.append(f"{unmatched} annotations without image in {IMAGES}/ are not used")
        return OwnImages(
            image_paths(root, images), labels, is_labeled, test_rows, names, tuple(notes)
        )


def _summary(source: str, names: tuple[str, ...], train: list[str], test: list[str]) -> str:
    parts = [
        f"{part} part: {' and '.join(f'{name}.txt' for name in lists)}"
        for part, lists in (("training", train), ("test", test))
        if lists
    ]
    return "; ".join([f"{len(names)} labels from {source}", *parts])


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return brief(", ".join(names[:5]), 200) + more
