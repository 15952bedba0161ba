"""Small valid files of every kind that the program reads.

A case maps paths in a folder to contents. The content of a file is bytes. A str means that the path is no
file: "/" is a folder, any other text is the target of a symbolic link.
"""

from __future__ import annotations

import io
import json
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

Files = dict[str, bytes | str]

SPACE = """\
metric: val_map
mode: max
parameters:
  scale: {type: float, low: 10, high: 30, log: true}
  margin: {type: float, low: 0.2, high: 0.5, step: 0.1}
  epochs: {type: int, low: 20, high: 40}
  negative_ratio: {type: categorical, choices: [5, 20, .inf]}
  balance: {type: categorical, choices: [true, false]}
  clamp: {type: categorical, choices: [true, false], when: {balance: true}}
published: {scale: 20, margin: 0.4, epochs: 30, negative_ratio: 20, balance: true, clamp: true}
fixed: {ema_decay: 0.99}
"""
CONFIG = """\
dataset: digits
method: bbam
epochs: 30
learning_rate: 1e-4
labeled_fraction: null
amp: false
scenes: 500
scale: 20
"""
_ARFF = """\
@relation r
@attribute a numeric
@attribute b {x,'y z'}
@attribute l1 {0,1}
@attribute l2 {1,0}
@data
"""
TEXTS = "id,text,labels\n" + "".join(
    f"n{k},word{k} and so on,{'a;b' if k % 2 else 'b'}\n" for k in range(8)
)
_COLUMNS = "file_name,cat,dog\n" + "".join(f"{k}.png,{k % 2},{k % 3 % 2}\n" for k in range(4))


def files_of(folder: Path) -> Files:
    """All files in a folder, as a case."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def image(kind: str = "png", side: int = 9) -> bytes:
    """A small image with some structure."""
    pixels = np.arange(side * side * 3, dtype=np.uint8).reshape(side, side, 3)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, kind)
    return content.getvalue()


def parquet(**columns: Any) -> bytes:
    """A Parquet file with these columns."""
    content = io.BytesIO()
    pq.write_table(pa.table(columns), content, row_group_size=3)
    return content.getvalue()


def npz(**arrays: Any) -> bytes:
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


def vectors() -> dict[str, Any]:
    labels = np.array([[k % 2, k % 3 == 0] for k in range(8)], np.uint8)
    features = np.arange(24, dtype=np.float32).reshape(8, 3)
    return {"features": features, "labels": labels, "label_names": np.array(["a", "b"])}


def parquet_vectors() -> dict[str, Any]:
    arrays = vectors()
    names = [["a"] if row[0] else ["b"] for row in arrays["labels"]]
    return {
        "name": [f"n{k}" for k in range(8)],
        "features": arrays["features"].tolist(),
        "labels": names,
    }


def images() -> Files:
    kinds = ("png", "jpeg", "gif", "bmp", "tiff", "webp")
    pictures: Files = {f"images/{k}.png": image() for k in range(4)}
    return {"labels.csv": _COLUMNS.encode(), **pictures} | {
        f"unlabeled/{number}.{kind}": image(kind) for number, kind in enumerate(kinds)
    }


def image_lines() -> Files:
    rows = [{"file_name": f"{k}.png", "labels": ["a", "b"][: 1 + k % 2]} for k in range(4)]
    lines = "\n".join(map(json.dumps, rows)).encode()
    pictures: Files = {f"{k}.png": image() for k in range(4)}
    return {"metadata.jsonl": lines, "labels.txt": b"a\nb\n"} | pictures


def mulan() -> Files:
    rows = "1,x,0,1\n2.5,'y z',1,0\n{0 3, 2 1}\n"
    xml = "<labels><label name='l1'><label name='l2'/></label></labels>"
    parts: Files = {f"d-{part}.arff": (_ARFF + rows).encode() for part in ("train", "test")}
    return {"d.xml": xml.encode(), **parts}


def aapd() -> Files:
    parts = ("train", "val", "test")
    texts: Files = {f"text_{part}": b"one text\nand another\n" for part in parts}
    return texts | {f"label_{part}": b"cs.a cs.b\ncs.b\n" for part in parts}


def ohsumed() -> Files:
    labels = [f"C{number:02d}" for number in range(1, 24)]
    return {f"{part}/{c}/{c}1": b"A text." for part in ("training", "test") for c in labels}


def voc() -> Files:
    from bbam_ray.data.datasets.voc2012 import LABELS

    main = "ImageSets/Main"
    files: Files = {
        f"{main}/{part}.txt": f"{part}1\n{part}2\n".encode() for part in ("train", "val")
    }
    for part in ("train", "val"):
        lines = f"{part}1 -1\n{part}2  1\n".encode()
        files |= {f"{main}/{label}_{part}.txt": lines for label in LABELS}
        files |= {f"JPEGImages/{part}{k}.jpg": image("jpeg") for k in (1, 2)}
    return files


def coco() -> Files:
    files: Files = {}
    for part in ("train2014", "val2014"):
        content = {
            "images": [{"id": k, "file_name": f"{part}-{k}.jpg"} for k in (3, 5)],
            "categories": [{"id": 1, "name": "cat"}, {"id": 7, "name": "dog"}],
            "annotations": [{"image_id": k, "category_id": c} for k, c in ((3, 1), (5, 7), (5, 1))],
        }
        files[f"annotations/instances_{part}.json"] = json.dumps(content).encode()
        files |= {f"{part}/{part}-{k}.jpg": image("jpeg") for k in (3, 5)}
    return files


def own_voc() -> Files:
    """Annotations instead of lists of labels."""
    files: Files = {
        "ImageSets/Main/train.txt": b"i1\ni2\ni3\n",
        "ImageSets/Main/val.txt": b"i4\ni5\n",
    }
    for k in range(1, 6):
        name = ("fox", "ox")[k % 2]
        text = (
            f"<annotation><object><name>{name}</name><difficult>0</difficult></object></annotation>"
        )
        files[f"Annotations/i{k}.xml"] = text.encode()
        files[f"JPEGImages/i{k}.jpg"] = image("jpeg")
    return files


def own_coco() -> Files:
    """One file with ids that are texts, and images in subfolders."""
    content = {
        "images": [{"id": f"i{k}", "file_name": f"sub/{k}.jpg"} for k in range(8)],
        "categories": [{"id": "c1", "name": "cat"}, {"id": "c2", "name": "dog"}],
        "annotations": [{"image_id": f"i{k}", "category_id": f"c{1 + k % 2}"} for k in range(8)],
    }
    files: Files = {f"images/sub/{k}.jpg": image("jpeg") for k in range(8)}
    return files | {"result.json": json.dumps(content).encode()}


def awa() -> Files:
    tables = {
        "classes.txt": "1\tfox\n2\tox\n3\tpig\n",
        "predicates.txt": "1\tred\n2\tbig\n",
        "predicate-matrix-binary.txt": "1 0\n0 1\n1 1\n",
        "trainclasses.txt": "fox\nox\n",
        "testclasses.txt": "pig\n",
    }
    animals: Files = {f"JPEGImages/{a}/{a}.jpg": image("jpeg") for a in ("fox", "ox", "pig")}
    return {name: text.encode() for name, text in tables.items()} | animals


def zip_file() -> Files:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("top/a.txt", b"some text " * 20)
        archive.writestr("top/b/c.txt", b"more")
    return {"a.zip": content.getvalue()}


def tar_file(name: str, mode: Any) -> Files:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode=mode) as archive:
        for member in ("top/a.txt", "top/b/c.txt"):
            info = tarfile.TarInfo(member)
            info.size = 50
            archive.addfile(info, io.BytesIO(b"x" * 50))
    return {name: content.getvalue()}


@cache
def valid_folder(make: Callable[[Path], None]) -> Files:
    """The files that a function of the program writes into a folder; it is called only once."""
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder))
        return files_of(Path(folder))
