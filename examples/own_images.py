"""Your own images, a third of them unlabelled: one table, one folder, one call.

python examples/own_images.py          # draws 240 small pictures to begin with
python examples/own_images.py DIR      # a folder with labels.csv and images/
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from bbam_ray import load_model, train

SHAPES = ("circle", "square", "line")


def draw_pictures(folder: Path, count: int = 240) -> None:
    """A folder as people have it: labels.csv lists the files; one in three has no labels."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    rows = ["file_name,labels,split"]
    for number in range(count):
        picture = Image.new("RGB", (32, 32), tuple(int(v) for v in rng.integers(0, 90, 3)))
        pen, present = ImageDraw.Draw(picture), rng.random(3) < 0.5
        for shape, x, y in zip(np.flatnonzero(present), *rng.integers(0, 18, (2, 3)), strict=False):
            box, colour = (int(x), int(y), int(x) + 12, int(y) + 12), (230, 230, 120)
            (pen.ellipse, pen.rectangle, pen.line)[shape](box, fill=colour)
        picture.save(folder / "images" / f"{number:03}.png")
        names = "" if number % 3 == 2 else "|".join(np.array(SHAPES)[present])
        rows.append(f"{number:03}.png,{names},{'unlabeled' if number % 3 == 2 else 'train'}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


def main(results: Path = Path("results"), folder: Path | None = None, epochs: int = 20) -> None:
    if folder is None:
        folder = Path(tempfile.mkdtemp()) / "pictures"
        draw_pictures(folder)
    # blank=negative: a labelled row without names has none of the labels.
    settings = {"backbone": "small-cnn", "weights": "none", "image_size": 32, "blank": "negative"}
    common = {"epochs": epochs, "warmup_epochs": epochs // 2, "test": True}
    run = train("images", data_dir=folder, settings=settings, results=results, **common)
    print(run)
    model = load_model(run.folder)
    pictures = sorted((folder / "images").iterdir())[:3]
    for picture, scores in zip(pictures, model.predict_proba(pictures), strict=True):
        by_label = zip(model.label_names, scores, strict=True)
        print(picture.name, ", ".join(f"{name} {score:.2f}" for name, score in by_label))


if __name__ == "__main__":
    main(folder=Path(sys.argv[1]) if len(sys.argv) > 1 else None)
