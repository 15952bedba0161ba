"""Both parts of a data set in the cache, with labels and names as metadata of their rows.

Data sets of features and of texts use it; images have rows alone in the cache (``cache/images.py``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bbam_ray.data.cache.folder import cache_dir, only_one, opened, whole_file
from bbam_ray.data.cache.row_file import StoredRows, bits_of, text_of_bits, write_rows
from bbam_ray.data.datasets.base import Part, Samples, ViewSettings
from bbam_ray.data.formats.labels.result import Labels, Reading
from bbam_ray.files import remove_unfinished

Targets = dict[Part, Path]
_READING_VERSION = 2  # increase it if the same files are understood in another way


def cached_parts(
    name: str, key: str, kind: type[StoredRows], write: Callable[[Targets], None]
) -> dict[Part, StoredRows]:
    """The stored rows of both parts, written at the first call only.

    If several processes need them at once, one writes and the others wait.

    Args:
        name: of the data set.
        key: changes with everything that the rows depend on.
        kind: class of the rows.
        write: writes the file of each part.
    """
    folder, stem = cache_dir() / name, _stem(key)
    targets: Targets = {
        "train": folder / f"{stem}-train.rows",
        "test": folder / f"{stem}-test.rows",
    }
    parts = _opened(targets, kind)
    if parts is None:
        with only_one(folder):
            parts = _opened(targets, kind)  # another process may have been first
            if parts is None:
                write(targets)
                parts = {part: kind(target) for part, target in targets.items()}
    return parts


def _stem(key: str) -> str:
    return hashlib.sha256(f"{_READING_VERSION} {key}".encode()).hexdigest()[:20]


def _opened(targets: Targets, kind: type[StoredRows]) -> dict[Part, StoredRows] | None:
    """The rows of both parts; None if the cache lacks one of them."""
    parts: dict[Part, StoredRows] = {}
    for part, target in targets.items():
        rows = opened(target, kind)
        if rows is None:
            return None
        parts[part] = rows
    return parts


def write_part(
    target: Path,
    rows: np.ndarray,
    labels: Labels,
    names: list[str] | None,
    chosen: np.ndarray,
    metadata: dict[str, Any],
) -> None:
    """Write the rows of one part.

    Args:
        target: the file.
        rows: (n, ...) of this part.
        labels, names: of all N samples.
        chosen: (n,) indices of this part's samples.
        metadata: further values to store with the rows.
    """
    described = {
        "labels": text_of_bits(labels.labels[chosen]),
        "is_labeled": text_of_bits(labels.is_labeled[chosen]),
        "label_names": list(labels.names),
        "names": [names[row] for row in chosen] if names else None,
        "is_validation": None,
        "reading": None if labels.reading is None else labels.reading.to_json(),
        **metadata,
    }
    if labels.validation is not None and labels.validation[chosen].any():
        described["is_validation"] = text_of_bits(labels.validation[chosen])
    remove_unfinished(target)
    with whole_file(target) as temporary:
        write_rows(temporary, rows, rows.shape[1:], rows.dtype, described)


def samples_of(rows: StoredRows, views: ViewSettings) -> Samples:
    """One part, with labels and names from the metadata of its rows."""
    label_names = tuple(rows.metadata["label_names"])
    is_labeled = bits_of(rows.metadata["is_labeled"], (len(rows),)).astype(bool)
    bits, reading = rows.metadata.get("is_validation"), rows.metadata.get("reading")
    return Samples(
        rows,
        bits_of(rows.metadata["labels"], (len(rows), len(label_names))),
        label_names,
        views,
        None if is_labeled.all() else is_labeled,
        rows.metadata["names"],
        None if bits is None else bits_of(bits, (len(rows),)).astype(bool),
        None if reading is None else Reading.from_json(reading),
        notes=tuple(rows.metadata.get("notes", ())),
    )
