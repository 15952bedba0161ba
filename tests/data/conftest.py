"""A cache folder of its own for every test, and a small Animals with Attributes 2 tree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

CLASSES = ("antelope", "grizzly+bear", "killer+whale", "beaver")
PREDICATES = ("black", "white", "furry")
MATRIX = ((0, 1, 1), (1, 0, 1), (1, 1, 0), (0, 0, 1))
PARTS = {"train": ("beaver", "antelope"), "test": ("killer+whale", "grizzly+bear")}
COLOURS = ((250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0))
IMAGES = (3, 1, 2, 4)  # of each class


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("BBAM_RAY_CACHE", str(folder))
    return folder


@pytest.fixture
def awa_tree(tmp_path: Path) -> Path:
    """Class k has IMAGES[k] images of one colour, so that a mix-up of rows is seen."""
    root = tmp_path / "awa"
    root.mkdir()
    for file, names in (("classes.txt", CLASSES), ("predicates.txt", PREDICATES)):
        lines = [f"{number:6d}\t{name}\n" for number, name in enumerate(names, start=1)]
        (root / file).write_text("".join(lines))
    rows = [" ".join(map(str, row)) + "\n" for row in MATRIX]
    (root / "predicate-matrix-binary.txt").write_text("".join(rows))
    for part, names in PARTS.items():
        (root / f"{part}classes.txt").write_text("".join(f"{name}\n" for name in names))
    for name, colour, count in zip(CLASSES, COLOURS, IMAGES, strict=True):
        folder = root / "JPEGImages" / name
        folder.mkdir(parents=True)
        for number in range(count):
            pixels = np.full((40 + number, 60, 3), colour, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{name}_{10001 + number}.jpg", quality=95)
    return root
