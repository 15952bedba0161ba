"""Small data sets in the layouts of the real ones, for tests of readers and of whole studies.

Each label has its own mark at its own position in an image. A mix-up of rows or labels is visible, and a
network can learn the labels.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from bbam_ray.data.datasets.voc2012 import LABELS as VOC_LABELS
from bbam_ray.data.example_texts import TOPICS, compose

REAL_AWA = Path(__file__).parents[2] / "shared" / "data" / "awa"
# Options with which a run on one of these data sets takes about a second.
SMALL: dict[str, dict[str, Any]] = {
    "digits": {"scenes": 60, "test_scenes": 30},
    **{
        name: {"image_size": 32} for name in ("awa", "voc2012", "coco2014", "voc", "coco", "images")
    },
    "features": {},
    **{
        name: {"backbone": "tiny-text", "weights": "none", "max_length": 32, "vocabulary": 300}
        for name in ("ohsumed", "aapd")
    },
    "text": {"max_length": 32, "vocabulary": 300},
}


def marked_image(
    labels: np.ndarray, size: tuple[int, int] = (48, 40), number: int = 0
) -> Image.Image:
    """An image in which square k of a 10 x 10 grid is white where label k is present.

    The last squares show ``number`` in binary, so that images can differ.
    """
    grid = np.full((10, 10), 60, dtype=np.uint8)
    grid.reshape(-1)[-10:][[number >> bit & 1 == 1 for bit in range(10)]] = 200
    grid.reshape(-1)[: len(labels)][np.asarray(labels, dtype=bool)] = 255
    return Image.fromarray(grid).convert("RGB").resize(size, Image.Resampling.NEAREST)


def first_marks(inputs: np.ndarray) -> np.ndarray:
    """The first ten labels, as drawn in stored images (N, 3, 32, 32): (N, 10) bool."""
    columns = (3.2 * np.arange(10) + 1.6).astype(int)
    marks: np.ndarray = inputs[:, 0, 1, columns] > 150
    return marks


def random_labels(rows: int, labels: int, seed: int = 0) -> np.ndarray:
    """(rows, labels) 0/1 with at least one positive in each row and two in each column."""
    drawn = (np.random.default_rng(seed).random((rows, labels)) < 0.3).astype(np.uint8)
    drawn[np.arange(rows), np.arange(rows) % labels] = 1
    return drawn


def awa(root: Path, per_class: int = 6) -> Path:
    """Eleven classes in the published layout, with the real attributes if they are available."""
    if REAL_AWA.is_dir():
        texts = {path.name: path.read_text() for path in REAL_AWA.glob("*.txt")}
    else:
        rows = random_labels(50, 85)
        texts = {
            "classes.txt": "".join(f"{k + 1:6d}\tclass{k}\n" for k in range(50)),
            "predicates.txt": "".join(f"{k + 1:6d}\tattribute{k}\n" for k in range(85)),
            "predicate-matrix-binary.txt": "".join(" ".join(map(str, row)) + "\n" for row in rows),
        }
    classes = [line.split()[1] for line in texts["classes.txt"].splitlines()]
    matrix = np.array([line.split() for line in texts["predicate-matrix-binary.txt"].splitlines()])
    texts["trainclasses.txt"] = "".join(f"{name}\n" for name in classes[:8])
    texts["testclasses.txt"] = "".join(f"{name}\n" for name in classes[8:11])
    for name, text in texts.items():
        _write(root / name, text)
    for row, name in enumerate(classes[:11]):
        for number in range(per_class):
            path = root / "JPEGImages" / name / f"{name}_{10001 + number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            marked_image(matrix[row] == "1", (60 + number, 50), 10 * row + number).save(path)
    return root


def voc2012(root: Path, train: int = 40, val: int = 22) -> Path:
    """The layout of VOCdevkit; in every tenth image, one label occurs only as a difficult object."""
    root = root / "VOCdevkit" / "VOC2012"
    (root / "JPEGImages").mkdir(parents=True)
    for part, count in (("train", train), ("val", val)):
        names = [f"2008_{1 + row + 1000 * (part == 'val'):06d}" for row in range(count)]
        labels = random_labels(count, 20, seed=count)
        marks = labels.astype(int) * 2 - 1
        marks[::10, 7] = 0
        _write(root / "ImageSets" / "Main" / f"{part}.txt", "\n".join(names) + "\n")
        for column, label in enumerate(VOC_LABELS):
            lines = [f"{name} {marks[row, column]:2d}\n" for row, name in enumerate(names)]
            _write(root / "ImageSets" / "Main" / f"{label}_{part}.txt", "".join(lines))
        for row, name in enumerate(names):
            marked_image(marks[row] == 1, (50 + row % 3, 40), row + 512 * (part == "val")).save(
                root / "JPEGImages" / f"{name}.jpg"
            )
    return root


def coco2014(root: Path, train: int = 40, val: int = 22) -> Path:
    """The layout of COCO 2014 with 80 categories whose ids have gaps; two images have no labels."""
    categories = [{"id": k + 1 + (k > 10), "name": f"category {k}"} for k in range(80)]
    for part, count in (("train2014", train), ("val2014", val)):
        labels = random_labels(count, 80, seed=count)
        labels[[3, 5]] = 0
        images, annotations = [], []
        (root / part).mkdir(parents=True)
        for row in range(count):
            name = f"COCO_{part}_{row + 1:012d}.jpg"
            marked_image(labels[row], number=row + 512 * (part == "val2014")).save(
                root / part / name
            )
            images.append({"id": row + 1, "file_name": name, "width": 48, "height": 40})
            for column in np.flatnonzero(labels[row]):
                for _ in range(1 + column % 2):  # several objects of one category
                    number = categories[column]["id"]
                    annotations.append({"image_id": row + 1, "category_id": number, "iscrowd": 0})
        content = {"images": images[::-1], "annotations": annotations, "categories": categories}
        _write(root / "annotations" / f"instances_{part}.json", json.dumps(content))
    return root


def voc_xml(objects: dict[str, int]) -> str:
    """An annotation with an object of each name; 1 = difficult."""
    entries = "".join(
        f"<object><name>{name}</name><difficult>{difficult}</difficult>"
        "<part><name>head</name></part><bndbox><xmin>1</xmin></bndbox></object>"
        for name, difficult in objects.items()
    )
    return f"<annotation><filename>any.jpg</filename>{entries}</annotation>"


def voc(root: Path, trainval: int = 40, test: int = 20, labels: int = 5) -> Path:
    """VOC2007's lists with other labels, which are in ``Annotations/`` only; one image has none."""
    names = {"trainval": [f"{row:06d}" for row in range(trainval)]}
    names["test"] = [f"{row + 500:06d}" for row in range(test)]
    names["train"], names["val"] = names["trainval"][::2], names["trainval"][1::2]
    (root / "JPEGImages").mkdir(parents=True)
    for part, listed in names.items():
        _write(root / "ImageSets" / "Main" / f"{part}.txt", "\n".join(listed) + "\n")
    for part, seed in (("trainval", 7), ("test", 8)):
        drawn = random_labels(len(names[part]), labels, seed=seed)
        for name, row in zip(names[part], drawn, strict=True):
            path = root / "JPEGImages" / f"{name}.jpg"
            marked_image(row, number=int(name)).save(path)
            objects = {f"cell {k}": 0 for k in np.flatnonzero(row)}
            _write(root / "Annotations" / f"{name}.xml", voc_xml(objects))
    (root / "Annotations" / "000007.xml").unlink()
    return root


def coco(root: Path, train: int = 40, val: int = 20, labels: int = 5) -> Path:
    """A folder of a user: ids as texts, images in subfolders, and categories of its own."""
    categories = [{"id": f"c{k}", "name": f"thing {k}"} for k in range(labels)]
    for part, count in (("train", train), ("val", val)):
        drawn = random_labels(count, labels, seed=count)
        drawn[3] = 0
        images, annotations = [], []
        for row in range(count):
            name = f"day{row % 2}/{part}{row:03d}.png"
            path = root / "images" / part / name
            path.parent.mkdir(parents=True, exist_ok=True)
            marked_image(drawn[row], number=row + 512 * (part == "val")).save(path)
            images.append({"id": str(row), "file_name": name})
            for column in np.flatnonzero(drawn[row]):
                entry = {"image_id": row, "category_id": f"c{column}", "iscrowd": int(column == 1)}
                annotations.append(entry)
        content = {"images": images, "annotations": annotations, "categories": categories}
        _write(root / "annotations" / f"{part}.json", json.dumps(content))
    return root


def images(root: Path, count: int = 50, unlabeled: int = 12) -> Path:
    """``labels.csv`` with a column ``split``, ``images/``, and a folder of unlabelled images."""
    labels = random_labels(count, 5, seed=3)
    lines = ["file_name,split,cat,dog,bird,fish,frog\n"]
    (root / "images").mkdir(parents=True)
    (root / "unlabeled").mkdir()
    for row in range(count):
        marked_image(labels[row], number=row).save(root / "images" / f"{row:03d}.png")
        cells = ",".join(map(str, labels[row]))
        lines.append(f"{row:03d}.png,{'test' if row % 3 == 2 else 'train'},{cells}\n")
    for row, more in enumerate(random_labels(unlabeled, 5, seed=4)):
        marked_image(more, number=512 + row).save(root / "unlabeled" / f"u{row:03d}.png")
    _write(root / "labels.csv", "".join(lines))
    return root


def parquet_images(path: Path, count: int = 50) -> Path:
    """One Parquet file as Hugging Face writes it: image bytes and lists of label names."""
    labels = random_labels(count, 5, seed=3)
    names = np.array(["cat", "dog", "bird", "fish", "frog"])
    rows = []
    for row in range(count):
        buffer = io.BytesIO()
        marked_image(labels[row]).save(buffer, "PNG")
        rows.append({"bytes": buffer.getvalue(), "path": f"{row}.png"})
    chosen = [names[row.astype(bool)].tolist() for row in labels]
    split = ["test" if row % 3 == 2 else "train" for row in range(count)]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": rows, "labels": chosen, "split": split}), path)
    return path


def features(root: Path, count: int = 60) -> Path:
    """An ``.npz`` file whose features are the labels plus noise."""
    labels = random_labels(count, 4, seed=5)
    rng = np.random.default_rng(6)
    vectors = np.repeat(labels, 3, axis=1) + 0.3 * rng.standard_normal((count, 12))
    root.mkdir(parents=True, exist_ok=True)
    np.savez(
        root / "vectors.npz",
        features=vectors[:40] * 50 + 7,
        labels=labels[:40],
        test_features=vectors[40:] * 50 + 7,
        test_labels=labels[40:],
        label_names=np.array(["a", "b", "c", "d"]),
    )
    return root / "vectors.npz"


def text(root: Path, count: int = 60) -> Path:
    """A folder with train.jsonl and test.csv; each topic has its own words."""
    texts, labels = compose(count, seed=1)
    names = list(TOPICS)
    chosen = [[names[k] for k in row.nonzero()[0]] for row in labels]
    lines = [
        json.dumps({"id": f"post {row}", "text": texts[row], "labels": chosen[row]})
        for row in range(40)
    ]
    _write(root / "train.jsonl", "".join(f"{line}\n" for line in lines))
    rows = [f'post {row},"{texts[row]}",{"|".join(chosen[row])}\n' for row in range(40, count)]
    _write(root / "test.csv", "id,text,labels\n" + "".join(rows))
    return root


def ohsumed(root: Path, train: int = 46, test: int = 30) -> Path:
    """A folder per category; an abstract with two categories is in both folders."""
    for folder, count in (("training", train), ("test", test)):
        texts, _ = compose(count, seed=count)
        for row in range(count):
            for label in {row % 23, row * 7 % 23}:
                _write(
                    root / folder / f"C{label + 1:02d}" / f"{row:07d}",
                    f"{texts[row]} sign{label}\n",
                )
    # An abstract has the same text in both of its folders.
    for folder in ("training", "test"):
        first: dict[str, str] = {}
        for path in sorted((root / folder).glob("C*/*")):
            path.write_text(first.setdefault(path.name, path.read_text()))
        for label in range(1, 24):
            (root / folder / f"C{label:02d}").mkdir(exist_ok=True)
    return root


def aapd(root: Path, train: int = 40, val: int = 10, test: int = 20) -> Path:
    """Six files with a line per text."""
    for part, count in (("train", train), ("val", val), ("test", test)):
        texts, labels = compose(count, seed=count)
        _write(root / f"text_{part}", "\n".join(texts) + "\n")
        rows = [" ".join(f"cs.{k}" for k in row.nonzero()[0]) for row in labels]
        _write(root / f"label_{part}", "\n".join(rows) + "\n")
    return root


#: name of a data set to a function that makes a small one in a folder and returns its --data-dir
TREES: dict[str, Callable[[Path], Path | None]] = {
    "digits": lambda root: None,
    "awa": awa,
    "voc2012": voc2012,
    "coco2014": coco2014,
    "voc": voc,
    "coco": coco,
    "images": images,
    "features": features,
    "text": text,
    "ohsumed": ohsumed,
    "aapd": aapd,
}


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def png(image: np.ndarray) -> bytes:
    """A gray image (H, W) as the content of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()
