"""The fuzzed readers: everything that reads a user's files, each with a small valid folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stress import fuzz_folders as folders
from stress import fuzz_readers as readers
from stress import fuzz_results as results
from stress.fuzz_folders import Files


@dataclass(frozen=True)
class Reader:
    """A part of the program that reads a user's files.

    Args:
        valid: returns the files of a small folder that is read without an error.
        read: reads a folder as a command does; raises a UsageError for what cannot be used.
        skip: files of the valid folder that are not mutated.
    """

    valid: Callable[[], Files]
    read: Callable[[Path], object]
    skip: tuple[str, ...] = ()


READERS: dict[str, Reader] = {
    "configuration": Reader(lambda: {"c.yaml": folders.CONFIG.encode()}, readers.configuration),
    "assignments": Reader(
        lambda: {"set.txt": folders.CONFIG.replace(": ", "=").encode()}, readers.assignments
    ),
    "search space": Reader(lambda: {"s.yaml": folders.SPACE.encode()}, readers.search_space),
    "texts .csv": Reader(
        lambda: {"train.csv": folders.TEXTS.encode(), "labels.txt": b"a\nb"},
        readers.dataset("text"),
    ),
    "texts .tsv": Reader(
        lambda: {"train.tsv": folders.TEXTS.replace(",", "\t").encode()}, readers.dataset("text")
    ),
    "texts .jsonl": Reader(
        lambda: {"train.jsonl": b'{"text": "so", "labels": ["a"]}\n' * 6}, readers.dataset("text")
    ),
    "texts .parquet": Reader(
        lambda: {
            "train.parquet": folders.parquet(text=["a b"] * 8, a=[0, 1] * 4, b=[1.0, 0.0] * 4)
        },
        readers.dataset("text"),
    ),
    "lists as text": Reader(
        lambda: {
            "train.csv": b"text,labels\n" + b"so,\"['a', 'b']\"\nno,['a']\nwe,array(['b'])\n" * 4,
            "dev.csv": b"text,labels\nso,\"['a', 'b']\"\n",
        },
        readers.dataset("text"),
    ),
    "vectors .jsonl": Reader(
        lambda: {
            "train.jsonl": b'{"text": "so", "labels": [1, 0, 1]}\n{"text": "no", "labels": [0, 1, 0]}\n'
            * 4,
            "labels.txt": b"a\nb\nc",
        },
        readers.dataset("text"),
    ),
    "objects .jsonl": Reader(
        lambda: {
            "train.jsonl": b'{"text": "so", "labels": {"a": 1, "b": 0}, "split": "train"}\n' * 8
        },
        readers.dataset("text"),
    ),
    "aapd": Reader(folders.aapd, readers.dataset("aapd", tokenizer="trained")),
    "ohsumed": Reader(folders.ohsumed, readers.dataset("ohsumed", tokenizer="trained")),
    "images": Reader(folders.images, readers.dataset("images", image_size=32)),
    "images .jsonl": Reader(folders.image_lines, readers.dataset("images", image_size=32)),
    "images .parquet": Reader(
        lambda: {
            "train.parquet": folders.parquet(image=[folders.image()] * 6, labels=[["a"], ["b"]] * 3)
        },
        readers.dataset("images", image_size=32),
    ),
    "one image": Reader(lambda: {"i.png": folders.image(side=20)}, readers.one_image),
    "features .npz": Reader(
        lambda: {"f.npz": folders.npz(**folders.vectors())}, readers.dataset("features", "f.npz")
    ),
    "features .parquet": Reader(
        lambda: {"train.parquet": folders.parquet(**folders.parquet_vectors())},
        readers.dataset("features"),
    ),
    "mulan": Reader(folders.mulan, readers.dataset("features")),
    "voc2012": Reader(folders.voc, readers.dataset("voc2012", image_size=32)),
    "coco2014": Reader(folders.coco, readers.dataset("coco2014", image_size=32)),
    "voc": Reader(folders.own_voc, readers.dataset("voc", image_size=32)),
    "coco": Reader(folders.own_coco, readers.dataset("coco", image_size=32)),
    "awa": Reader(folders.awa, readers.dataset("awa", image_size=32)),
    "archive .zip": Reader(folders.zip_file, readers.archive),
    "archive .tar": Reader(lambda: folders.tar_file("a.tar", "w"), readers.archive),
    "archive .tar.gz": Reader(lambda: folders.tar_file("a.tar.gz", "w:gz"), readers.archive),
    "stored rows": Reader(lambda: folders.valid_folder(readers.make_rows), readers.stored_rows),
    "predict images": Reader(
        lambda: {
            f"{k}.{kind}": folders.image(kind)
            for k, kind in enumerate(("png", "jpeg", "gif", "tiff"))
        },
        readers.inputs((3, 8, 8)),
    ),
    "predict images .parquet": Reader(
        lambda: {"f.parquet": folders.parquet(image=[folders.image()] * 4, name=list("abcd"))},
        readers.inputs((3, 8, 8), "f.parquet"),
    ),
    "predict .npz": Reader(
        lambda: {
            "f.npz": folders.npz(
                features=folders.vectors()["features"], label_names=np.array(["a", "b"])
            )
        },
        readers.inputs((3,), "f.npz"),
    ),
    "predict .parquet": Reader(
        lambda: {"f.parquet": folders.parquet(**folders.parquet_vectors())},
        readers.inputs((3,), "f.parquet"),
    ),
    "predict texts .csv": Reader(
        lambda: {"t.csv": folders.TEXTS.encode()}, readers.inputs((9,), "t.csv", texts=True)
    ),
    "predict texts .parquet": Reader(
        lambda: {"t.parquet": folders.parquet(text=["a b", None] * 4, id=list(range(8)))},
        readers.inputs((9,), "t.parquet", texts=True),
    ),
    "study": Reader(lambda: folders.valid_folder(results.make_study), results.study),
    "report": Reader(lambda: folders.valid_folder(results.make_study), results.report),
    "storage": Reader(lambda: folders.valid_folder(results.make_storage), results.storage),
    "model": Reader(lambda: folders.valid_folder(results.make_model), results.model),
    "checkpoint": Reader(lambda: folders.valid_folder(results.make_checkpoint), results.checkpoint),
    "checkpoint of another run": Reader(
        lambda: folders.valid_folder(results.make_checkpoint), results.resumed
    ),
}
