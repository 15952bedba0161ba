"""The files of a folder in the layout of PASCAL VOC, for the data set ``voc``."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from bbam_ray.data.datasets.image_base import IMAGE_SUFFIXES, image_files
from bbam_ray.errors import UsageError, brief

LISTS = ("train", "val", "trainval", "test")
IMAGES, ANNOTATIONS, MAIN = "JPEGImages", "Annotations", "ImageSets/Main"
_NAMES = {  # as published, and as annotation tools write them
    IMAGES: (IMAGES, "images", "Images"),
    ANNOTATIONS: (ANNOTATIONS, "annotations"),
}
_LABEL_LIST = re.compile(r"(.+)_(train|val|trainval|test)")
Lists = dict[str, list[str]]  # name of a list to its images


def voc_folder(data_dir: Path) -> Path:
    """The folder with the images: data_dir itself, or one below it as the archives unpack it."""
    if _inside(data_dir, IMAGES).is_dir():
        return data_dir
    above = [folder for folder in (data_dir, data_dir / "VOCdevkit") if folder.is_dir()]
    inner = sorted(
        path for folder in above for path in folder.iterdir() if _inside(path, IMAGES).is_dir()
    )
    if len(inner) != 1:
        choice = " and ".join(path.name for path in inner[:3])
        what = f"contains {choice}; give one of them as --data-dir"
        raise UsageError(
            f"{data_dir}: {what if inner else f'no folder {IMAGES}; give the folder that has it'}"
        )
    return inner[0]


def _inside(root: Path, folder: str) -> Path:
    """A folder of VOC by the first of its names that exists."""
    names = [name for name in _NAMES[folder] if (root / name).is_dir()]
    return root / (names[0] if names else folder)


def label_lists_of(root: Path) -> dict[str, set[str]]:
    """Label to the names of its lists, from the names of the files."""
    labels: dict[str, set[str]] = {}
    for path in sorted((root / MAIN).glob("*.txt")):
        match = _LABEL_LIST.fullmatch(path.stem)
        if match and not path.name.startswith("."):
            labels.setdefault(match[1], set()).add(match[2])
    return labels


def annotations_of(root: Path) -> dict[str, Path]:
    """Image to its annotation."""
    folder = _inside(root, ANNOTATIONS)
    files = sorted(path for path in folder.rglob("*.xml") if path.name[0] != ".")
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in files}


def parts_of(
    root: Path, lists: Lists, labelled: Callable[[str], bool], notes: list[str]
) -> tuple[list[str], list[str]]:
    """The names of the lists that make the training part and the test part (maybe none).

    Args:
        root: the folder, for messages.
        lists: all lists that there are.
        labelled: whether the images of a list have labels.
        notes: gets a sentence about a list that is not used.

    Raises:
        UsageError: no list for training, or an image that would be in both parts.
    """
    usable = [name for name in LISTS if name in lists and labelled(name)]
    pool: list[str] = [name for name in usable if name in ("train", "val")]
    if "trainval" in usable:
        pool = ["trainval"]
    if not pool:
        raise UsageError(
            f"{root / MAIN}: no train.txt or trainval.txt whose images have labels; add one"
        )
    parts: tuple[list[str], list[str]] = (pool, [])
    if "test" in usable:
        parts = (pool, ["test"])
    elif "train" in usable and "val" in usable:
        parts = (["train"], ["val"])
    if "test" in lists and "test" not in usable:
        notes.append("test.txt is not used, as none of its images has labels")
    images = Counter(bare_name(image) for name in (*parts[0], *parts[1]) for image in lists[name])
    if double := next((image for image, count in images.items() if count > 1), None):
        used = " and ".join(f"{name}.txt" for name in (*parts[0], *parts[1]))
        raise UsageError(
            f"{root / MAIN}: image {brief(double)} occurs twice in {used}; remove it from one"
        )
    return parts


def bare_name(image: str) -> str:
    """An image of a list without the suffix that some lists have."""
    name, suffix = os.path.splitext(image)
    return name if suffix.lower() in IMAGE_SUFFIXES else image


def files_by_name(root: Path) -> dict[str, Path]:
    """The images below JPEGImages by their name without suffix."""
    files: dict[str, Path] = {}
    folder = _inside(root, IMAGES)
    for path in sorted(image_files(folder)):
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in files:
            raise UsageError(
                f"{path}: {files[name].name} has the same name, so which one annotations mean is not "
                "clear; rename one of them"
            )
        files[name] = path
    return files


def image_paths(root: Path, images: list[str]) -> list[Path]:
    """The files of the images of a list; NAME.jpg for those that are missing."""
    files, folder = files_by_name(root), _inside(root, IMAGES)
    return [files.get(bare_name(image), folder / f"{bare_name(image)}.jpg") for image in images]
