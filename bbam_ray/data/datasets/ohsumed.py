"""``ohsumed``: medical abstracts with 23 cardiovascular disease categories (Hersh et al., SIGIR 1994).

Layout as in Joachims' division of the first 20,000 abstracts of 1991 (``ohsumed-first-20000-docs``):
folders ``training/`` and ``test/``, in each a folder ``C01`` to ``C23``, in each a file for every abstract
of the category. An abstract of several categories is in several folders, under the same name.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from bbam_ray.data.datasets.base import Part
from bbam_ray.data.datasets.text_base import PRETRAINED, Documents, TextDataset, TextOptions
from bbam_ray.data.formats.file_list import name_of_file
from bbam_ray.data.formats.labels.result import Labels
from bbam_ray.errors import UsageError

LABELS = tuple(f"C{number:02d}" for number in range(1, 24))
DEFAULT_DIR = Path("data/ohsumed-first-20000-docs")
_FOLDERS: dict[Part, str] = {"train": "training", "test": "test"}


class Ohsumed(TextDataset):
    """Abstracts of ``training`` and ``test``."""

    name: ClassVar[str] = "ohsumed"
    defaults: ClassVar[dict[str, Any]] = PRETRAINED

    def files(self, options: TextOptions, data_dir: Path | None) -> list[Path]:
        root = _root(data_dir)
        files: list[Path] = []
        for folder in _FOLDERS.values():
            for label in LABELS:
                category = root / folder / label
                if not category.is_dir():
                    raise UsageError(
                        f"{category}: no such folder; --data-dir expects the folder with training/C01 to "
                        "training/C23 and test/"
                    )
                with os.scandir(category) as entries:  # tells files without a call for each
                    files += sorted(Path(entry) for entry in entries if _is_file(entry))
        return files

    def read(self, options: TextOptions, data_dir: Path | None) -> Documents:
        rows: dict[tuple[str, str], int] = {}  # by part and file name
        texts: list[str] = []
        labels: list[np.ndarray] = []
        column = {label: index for index, label in enumerate(LABELS)}
        for path in self.files(options, data_dir):
            part, label = path.parent.parent.name, path.parent.name
            key = (part, path.name)
            if key not in rows:
                rows[key] = len(texts)
                texts.append(_text(path))
                labels.append(np.zeros(len(LABELS), dtype=np.uint8))
            labels[rows[key]][column[label]] = 1
        test = np.array([part == _FOLDERS["test"] for part, _ in rows])
        if not len(texts) or test.all() or not test.any():
            raise UsageError(
                f"{_root(data_dir)}: no abstracts in training/ or in test/; unpack the data set again"
            )
        names = [f"{part}/{name_of_file(name)}" for part, name in rows]
        is_labeled = np.ones(len(texts), dtype=bool)
        return Documents(texts, Labels(np.stack(labels), is_labeled, LABELS, test), names)


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a symlink to itself
        return False


def _text(path: Path) -> str:
    text = path.read_bytes().decode("latin-1").strip()  # the encoding of the files; never fails
    if not text:
        raise UsageError(f"{path}: empty; unpack the data set again")
    return text


def _root(data_dir: Path | None) -> Path:
    root = data_dir or DEFAULT_DIR
    if not os.path.isdir(root):
        raise UsageError(
            f"--data-dir {root}: no such folder; get ohsumed-first-20000-docs.tar.gz from the text "
            "categorization corpora of A. Moschitti (University of Trento), unpack it and give its folder"
        )
    return root
