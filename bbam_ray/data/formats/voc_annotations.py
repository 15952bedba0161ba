"""Annotations of PASCAL VOC: an XML file per image, with the name of each of its objects."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bbam_ray.data.formats.xml_files import read_xml
from bbam_ray.errors import UsageError

ABSENT, DIFFICULT, PRESENT = -1, 0, 1  # as in VOC's lists of images


def read_objects(path: Path) -> dict[str, int]:
    """Names of the objects in an image: PRESENT, or DIFFICULT if all objects of this name are.

    Parts of objects (``object/part/name``) are no objects.

    Raises:
        UsageError: not such a file, or an object without a name.
    """
    root = read_xml(path, "an annotation", "correct it, or remove it")
    if root.tag != "annotation":
        raise UsageError(
            f"{path}: <{root.tag[:40]}>, not <annotation>; remove it from Annotations/"
        )
    objects: dict[str, int] = {}
    for entry in root.iterfind("object"):
        name = (entry.findtext("name") or "").strip()
        if not name:
            raise UsageError(f"{path}: an <object> has no <name>; add it, or remove the object")
        difficult = (entry.findtext("difficult") or "").strip().lower() in ("1", "true", "yes")
        mark = DIFFICULT if difficult else PRESENT
        objects[name] = max(mark, objects.get(name, mark))
    return objects


def read_marks(paths: dict[str, Path]) -> dict[str, np.ndarray]:
    """The objects of many images, as arrays for the cache.

    Args:
        paths: image to annotation.

    Returns:
        ``images`` (N,), ``names`` (K,) sorted, and ``marks`` (N, K) int8: ABSENT, DIFFICULT or PRESENT.
    """
    objects = [read_objects(path) for path in paths.values()]
    names = sorted({name for marks in objects for name in marks})
    column = {name: index for index, name in enumerate(names)}
    marks: np.ndarray = np.full((len(paths), len(names)), ABSENT, dtype=np.int8)
    for row, present in enumerate(objects):
        for name, mark in present.items():
            marks[row, column[name]] = mark
    return {
        "images": np.array(list(paths), dtype=str),
        "names": np.array(names, dtype=str),
        "marks": marks,
    }
