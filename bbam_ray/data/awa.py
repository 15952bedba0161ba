"""``awa``: Animals with Attributes 2 (Xian et al., TPAMI 2018), 50 animals with 85 attributes each.

Layout as published: ``JPEGImages/<class>/*.jpg`` beside ``classes.txt``, ``predicates.txt``,
``predicate-matrix-binary.txt``, ``trainclasses.txt`` and ``testclasses.txt``. Every image carries the
attributes of its class; train and test classes are disjoint.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from bbam_ray.config import DatasetOptions
from bbam_ray.data.dataset import Dataset, Part, Samples, ViewSettings
from bbam_ray.data.image_cache import cached_images, files_state
from bbam_ray.errors import UsageError

TABLES = (
    "classes.txt",
    "predicates.txt",
    "predicate-matrix-binary.txt",
    "trainclasses.txt",
    "testclasses.txt",
)
DEFAULT_DIR = Path("data/Animals_with_Attributes2")


class AwaOptions(DatasetOptions):
    """Options of the data set ``awa``."""

    image_size: int = Field(224, ge=32, le=1024, description="side of the stored images in pixels")


class Awa(Dataset):
    """Images (N, 3, S, S) uint8 with the binary attributes of their class."""

    name: ClassVar[str] = "awa"
    Options = AwaOptions
    views: ClassVar[ViewSettings] = ViewSettings(
        mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), flip=True
    )
    defaults: ClassVar[dict[str, Any]] = {
        "backbone": "resnet50",
        "weights": "IMAGENET1K_V2",
        "labeled_batch": 32,
        "unlabeled_batch": 96,
        "evaluation_batch": 128,
    }

    def check(self, options: AwaOptions, data_dir: Path | None) -> None:
        root = data_dir or DEFAULT_DIR
        wanted = [*TABLES, "JPEGImages"]
        missing = [name for name in wanted if not (root / name).exists()]
        if missing:
            raise UsageError(
                f"data set 'awa' is not in {root.resolve()} (missing: {', '.join(missing)}): download "
                "AwA2-data.zip (13 GB, Animals with Attributes 2, from the data set's page at the "
                "Institute of Science and Technology Austria, cvml.ista.ac.at/AwA2), unpack it and give "
                "the folder that holds JPEGImages/ and classes.txt as --data-dir; "
                "--dataset digits works right away"
            )
        _attributes(root)
        for part in ("train", "test"):
            for animal in _class_list(root, part):
                if not (root / "JPEGImages" / animal).is_dir():
                    raise UsageError(
                        f"{root / 'JPEGImages' / animal}: no such folder, though {part}classes.txt "
                        "lists this class; unpack the archive again"
                    )

    def state(self, options: AwaOptions, data_dir: Path | None) -> str:
        root = data_dir or DEFAULT_DIR
        return files_state(
            [*(root / name for name in TABLES), *sorted((root / "JPEGImages").glob("*/*.jpg"))]
        )

    def load(self, options: AwaOptions, data_dir: Path | None, part: Part) -> Samples:
        root = data_dir or DEFAULT_DIR
        names, matrix = _attributes(root)
        paths: list[Path] = []
        labels: list[np.ndarray] = []
        for animal in _class_list(root, part):
            images = sorted((root / "JPEGImages" / animal).glob("*.jpg"))
            paths += images
            labels += [matrix[animal]] * len(images)
        if not paths:
            raise UsageError(
                f"{root / 'JPEGImages'}: no .jpg file for any class of {part}classes.txt"
            )
        stored = cached_images(self.name, paths, options.image_size)
        return Samples(stored, np.stack(labels), names)


def _class_list(root: Path, part: str) -> list[str]:
    return (root / f"{part}classes.txt").read_text(encoding="utf-8").split()


def _attributes(root: Path) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Attribute names and the binary attribute row of each class."""

    def numbered(file: str) -> list[str]:
        lines = (root / file).read_text(encoding="utf-8").splitlines()
        return [line.split()[-1] for line in lines if line.strip()]

    classes, names = numbered("classes.txt"), numbered("predicates.txt")
    table = root / "predicate-matrix-binary.txt"
    rows = [line.split() for line in table.read_text(encoding="utf-8").splitlines() if line.strip()]
    if len(rows) != len(classes) or any(len(row) != len(names) for row in rows):
        raise UsageError(
            f"{table}: expected {len(classes)} rows of {len(names)} numbers, one row per line of "
            "classes.txt and one number per line of predicates.txt"
        )
    if any(value not in ("0", "1") for row in rows for value in row):
        raise UsageError(f"{table}: contains something else than 0 and 1")
    matrix = np.array(rows, dtype=np.uint8)
    unknown = [c for part in ("train", "test") for c in _class_list(root, part) if c not in classes]
    if unknown:
        raise UsageError(f"{root}: class '{unknown[0]}' is not in classes.txt")
    return tuple(names), dict(zip(classes, matrix, strict=True))
