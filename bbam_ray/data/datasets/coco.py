"""``coco``: images with annotation files in COCO's JSON format and categories of their own.

The annotation files may be

- ``annotations/instances_train*.json`` with ``instances_val*.json`` and maybe ``instances_test*.json``;
- JSON files in the folder, its ``annotations/``, ``train/``, ``valid/`` or ``test/``, whose name or folder
  tells the part (``train.json``; ``train/_annotations.coco.json`` as Roboflow writes it);
- a single JSON file, of which a stratified share of the images becomes the test part. ``--data-dir`` may
  name it.

If there is a test file, the validation images join the training part; otherwise they are the test part.
Images are searched in the folders that such data sets use (``train2017/``, ``images/``, ...).
``coco2014`` is the published data set.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from bbam_ray.config import DatasetOptions
from bbam_ray.data.datasets.coco2014 import Annotations, read_annotations
from bbam_ray.data.datasets.own_folders import OwnFolder, OwnFolderOptions, OwnImages
from bbam_ray.errors import UsageError, brief

_PARTS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_WORD = re.compile(r"(?<![a-z])(train|validation|valid|val|test)(?![a-z])", re.IGNORECASE)
_LAYOUTS = (
    "annotations/instances_train*.json and instances_val*.json, train.json and val.json, or one JSON "
    "file"
)


class CocoFolderOptions(OwnFolderOptions):
    """Options of the data set ``coco``."""

    unannotated: Literal["negative", "unlabeled", "skip"] = Field(
        "negative",
        description="Images without annotations: labelled, and none of the categories applies "
        "(`negative`); not labelled (`unlabeled`); or left out (`skip`).",
    )


class Coco(OwnFolder):
    """Images with COCO annotations of a user."""

    name: ClassVar[str] = "coco"
    Options: ClassVar[type[DatasetOptions]] = CocoFolderOptions

    def label_files(self, options: CocoFolderOptions, data_dir: Path | None) -> list[Path]:
        return [path for _, path in _annotation_files(self.root(data_dir))[0]]

    def read(self, options: CocoFolderOptions, data_dir: Path) -> OwnImages:
        files, notes = _annotation_files(data_dir)
        root = data_dir.parent if data_dir.is_file() else data_dir
        contents = [(part, path, read_annotations(path, self.name)) for part, path in files]
        if contents[-1][0] == "test" and not contents[-1][2].labels.any():
            *contents, (_, path, _) = contents
            notes.append(f"{path.name}: no annotations, so its images are not used")
        test_part = "test" if contents[-1][0] == "test" else "val"
        first, names = contents[0][1], contents[0][2].names.tolist()
        paths: list[Path] = []
        blocks, is_test = [], []
        for part, path, content in contents:
            blocks.append(content.labels[:, _columns(content, names, path, first)])
            images = content.files.tolist()
            folder = _image_folder(root, path, part, images)
            paths += [folder / image for image in images]
            is_test += [part == test_part] * len(images)
            role = "test" if part == test_part else "training"
            where = folder.relative_to(root).as_posix()
            notes.append(f"{path.name}: {len(images)} {role} images, in {where}/")
            if not content.labels.any():
                raise UsageError(f"{path}: no image with an annotation; annotate some of them")
        if double := next((path for path, count in Counter(paths).items() if count > 1), None):
            raise UsageError(
                f"{double}: listed in two annotation files; remove it from one of them"
            )
        labels, test = np.concatenate(blocks), np.array(is_test)
        annotated: np.ndarray = labels.any(axis=1)  # type: ignore[assignment]
        chosen: np.ndarray = np.ones(len(labels), dtype=bool)
        is_labeled = chosen
        if options.unannotated == "unlabeled":
            chosen, is_labeled = annotated | ~test, annotated
        elif options.unannotated == "skip":
            chosen = annotated
        if not annotated.all():
            notes.append(_unannotated(paths, annotated, root, options))
        return OwnImages(
            [path for path, wanted in zip(paths, chosen.tolist(), strict=True) if wanted],
            labels[chosen],
            is_labeled[chosen],
            test[chosen],
            tuple(names),
            tuple(notes),
        )


def _unannotated(
    paths: list[Path], annotated: np.ndarray, root: Path, options: CocoFolderOptions
) -> str:
    meaning = {
        "negative": "are labelled, and no category applies",
        "unlabeled": "are not labelled (left out of the test part)",
        "skip": "are left out",
    }[options.unannotated]
    first = brief(str(paths[int(np.argmin(annotated))].relative_to(root)))
    count = int(np.sum(~annotated))
    return (
        f"{count} images without annotations {meaning} (setting unannotated); the first is {first}"
    )


def _annotation_files(data_dir: Path) -> tuple[list[tuple[str, Path]], list[str]]:
    """(part, file) in the order train, val, test, and notes about other JSON files; a part of one file."""
    if data_dir.is_file():
        return [("train", data_dir)], []
    folders = [data_dir, data_dir / "annotations"]
    folders += [data_dir / name for name in _PARTS if (data_dir / name).is_dir()]
    json_files = [
        path for folder in folders for path in sorted(folder.glob("*.json")) if path.name[0] != "."
    ]
    # The published folders have captions and keypoints beside the objects.
    chosen = [path for path in json_files if path.name.startswith("instances_")] or json_files
    if not chosen:
        raise UsageError(f"{data_dir}: no annotation file; expected {_LAYOUTS}")
    by_part: dict[str, list[Path]] = {}
    for path in chosen:
        part = "train" if len(chosen) == 1 else _part(path, data_dir)
        by_part.setdefault(part, []).append(path)
    ignored = [path for path in json_files if path not in chosen]
    if "train" in by_part:
        ignored += by_part.pop("", [])
    if "train" not in by_part or any(len(paths) > 1 for paths in by_part.values()):
        listed = ", ".join(brief(str(path.relative_to(data_dir))) for path in chosen[:4])
        raise UsageError(
            f"{data_dir}: which annotation file is the training part is not clear among {listed}; "
            f"expected {_LAYOUTS}, so rename them or move the others away"
        )
    files: list[tuple[str, Path]] = [
        (part, by_part[part][0]) for part in ("train", "val", "test") if part in by_part
    ]
    names = ", ".join(brief(path.name) for path in ignored[:3])
    more = f" and {len(ignored) - 3} more" if len(ignored) > 3 else ""
    return files, [f"not read: {names}{more}"] if ignored else []


def _part(path: Path, data_dir: Path) -> str:
    """train, val, test, or "" if neither the file's name nor its folder tells."""
    for text in (path.stem, path.parent.name if path.parent != data_dir else ""):
        if words := _WORD.findall(text):
            return _PARTS[words[-1].lower()]
    return ""


def _columns(annotations: Annotations, names: list[str], path: Path, first: Path) -> list[int]:
    """The columns of a file's labels in the order of the first file's categories."""
    own = annotations.names.tolist()
    if set(own) != set(names):
        missing = sorted(set(names) ^ set(own))[0]
        raise UsageError(
            f"{path}: its categories differ from those of {first.name}: '{brief(missing)}' is only in "
            f"{path.name if missing in own else first.name}; list the same ones in both"
        )
    return [own.index(name) for name in names]


def _image_folder(root: Path, path: Path, part: str, images: list[str]) -> Path:
    """The folder that the file names are relative to: the first one in which one of three images is."""
    words = [word for word, meaning in _PARTS.items() if meaning == part]
    stem = re.sub(r"^(instances|annotations?)_|_(instances|annotations?)$", "", path.stem)
    named = [stem, *words, *(f"{stem}_images", f"images_{stem}")]
    folders = [root / name for name in named] + [root / "images" / name for name in named]
    folders += [path.parent, root / "images", root, path.parent / "images"]
    samples = {images[position] for position in (0, len(images) // 2, -1)} if images else set()
    for folder in folders:
        if any(os.path.isfile(folder / image) for image in sorted(samples)):
            return folder
    if not images:
        raise UsageError(f"{path}: lists no image; annotate some, or remove the file")
    tried = ", ".join(f"{name}/" for name in dict.fromkeys((stem, *words[:1], "images")))
    raise UsageError(
        f"{path}: image {brief(images[0])} is in none of {tried} or next to the JSON file; put the images "
        "there, or correct 'file_name'"
    )
