"""``split.parquet``: how a study uses each training sample, stored with its results."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bbam_ray.data.cache.row_file import StoredRows
from bbam_ray.data.datasets.base import Samples
from bbam_ray.data.sampling.splits import Split
from bbam_ray.engine.task import Task
from bbam_ray.errors import UsageError
from bbam_ray.files import atomic_file
from bbam_ray.results.schemas import SPLIT
from bbam_ray.results.store import read_table

SPLIT_FILE = "split.parquet"


def content_digest(samples: Samples) -> str:
    """Digest of the inputs, labels and names of samples; empty if their inputs have no checksums."""
    if not isinstance(samples.inputs, StoredRows):
        return ""
    digest = hashlib.sha256(samples.inputs.digest.encode())
    digest.update(json.dumps([samples.label_names, list(samples.names or ())]).encode())
    digest.update(np.ascontiguousarray(samples.labels).tobytes())
    for mask in (samples.is_labeled, samples.is_validation):
        digest.update(b"-" if mask is None else np.packbits(mask).tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class NamedSplit:
    """The division of the training samples, without the samples themselves.

    Args:
        split: row indices of each part.
        names: N names (files); None if samples have none.
        content: digest of the samples and their labels, wherever they lie; empty if unknown.
    """

    split: Split
    names: Sequence[str] | None
    content: str = ""

    @classmethod
    def of(cls, task: Task) -> NamedSplit:
        return cls(task.split, task.samples.names, content_digest(task.samples))

    @classmethod
    def of_study(cls, task: Task, settings: Mapping[str, Any]) -> NamedSplit:
        """That of a search; with ``reshuffle`` all labelled samples are in one part, as each trial holds
        out others.

        Args:
            task: of the published settings.
            settings: of the study.
        """
        split = task.split
        if settings.get("reshuffle"):
            split = Split(split.pool, np.empty(0, dtype=np.int64), split.unlabeled)
        return cls(split, task.samples.names, content_digest(task.samples))

    def table(self) -> pa.Table:
        """One row per training sample, in their order: its index, its name, its part of the split.

        With folds, the parts are those of the first fold, and a column ``fold`` has the fold of each
        labelled or validation sample.
        """
        split = self.split
        count = len(split.pool) + len(split.unlabeled)
        parts = np.empty(count, dtype=object)
        for name in ("labeled", "validation", "unlabeled"):
            parts[getattr(split, name)] = name
        names = list(self.names) if self.names else [None] * count
        columns: list[Any] = [np.arange(count), names, parts]
        if split.folds is None:
            return pa.table(columns, schema=SPLIT)
        folds: np.ndarray = np.full(count, None, dtype=object)
        folds[split.pool] = split.folds.tolist()
        return pa.table([*columns, folds], schema=SPLIT.append(pa.field("fold", pa.int32())))


def keep_split(folder: Path, split: NamedSplit) -> None:
    """Write the split of a new study, or check that of a resumed one.

    Args:
        folder: of the study.
        split: of its samples.

    Raises:
        UsageError: the samples are not divided as they were when the study began.
    """
    table = split.table()
    path = folder / SPLIT_FILE
    if not path.exists():
        with atomic_file(path) as temporary:
            pq.write_table(table, temporary, compression="zstd")
        return
    before = read_table(path)
    if not before.equals(table):
        raise UsageError(
            f"{path}: {len(table)} training samples are not divided as the {len(before)} were when study "
            f"'{folder.name}' began: the data have changed; restore them, or use another --name"
        )
