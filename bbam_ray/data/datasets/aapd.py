"""``aapd``: abstracts of arXiv papers in computer science with 54 subjects (Yang et al., COLING 2018).

Layout as published with SGM: ``text_train``, ``text_val``, ``text_test`` with one text per line, and
``label_train``, ``label_val``, ``label_test`` with the subjects of each line, separated by spaces. The
training and validation files are the training part (54,840), as in the paper; ``text_test`` is the test
part (1,000).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from bbam_ray.data.datasets.text_base import PRETRAINED, Documents, TextDataset, TextOptions
from bbam_ray.data.formats.labels.result import Labels
from bbam_ray.data.formats.tables import read_text
from bbam_ray.errors import UsageError

DEFAULT_DIR = Path("data/aapd")
_PARTS = ("train", "val", "test")


class Aapd(TextDataset):
    """Abstracts of the three published files."""

    name: ClassVar[str] = "aapd"
    defaults: ClassVar[dict[str, Any]] = PRETRAINED

    def files(self, options: TextOptions, data_dir: Path | None) -> list[Path]:
        root = data_dir or DEFAULT_DIR
        if not os.path.isdir(root):
            raise UsageError(
                f"--data-dir {root}: no such folder; give the one with text_train, label_train etc. of "
                "AAPD (published with SGM, Yang et al. 2018)"
            )
        files = [root / f"{kind}_{part}" for part in _PARTS for kind in ("text", "label")]
        for path in files:
            if not path.is_file():
                raise UsageError(
                    f"{path}: no such file; AAPD consists of {', '.join(p.name for p in files)}"
                )
        return files

    def read(self, options: TextOptions, data_dir: Path | None) -> Documents:
        files = self.files(options, data_dir)
        texts: list[str] = []
        subjects: list[list[str]] = []
        parts: list[str] = []
        for part, text_file, label_file in zip(_PARTS, files[::2], files[1::2], strict=True):
            lines, label_lines = _lines(text_file), _lines(label_file)
            if len(lines) != len(label_lines):
                raise UsageError(
                    f"{label_file}: {len(label_lines)} lines for {len(lines)} lines of {text_file.name}; "
                    "copy both again"
                )
            texts += lines
            subjects += [line.split() for line in label_lines]
            parts += [part] * len(lines)
        names = tuple(sorted({name for row in subjects for name in row}))
        column = {name: index for index, name in enumerate(names)}
        labels = np.zeros((len(texts), len(names)), dtype=np.uint8)
        for row, present in enumerate(subjects):
            labels[row, [column[name] for name in present]] = 1
        test = np.array([part == "test" for part in parts])
        return Documents(texts, Labels(labels, np.ones(len(texts), dtype=bool), names, test))


def _lines(path: Path) -> list[str]:
    lines = read_text(path, "copy it again").removesuffix("\n").split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            raise UsageError(f"{path} line {number}: blank; copy the file again")
    return lines
