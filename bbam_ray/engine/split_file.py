"""``split.parquet``: how a study uses each training sample, stored with its results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bbam_ray.data.sampling.splits import Split
from bbam_ray.engine.task import Task
from bbam_ray.errors import UsageError
from bbam_ray.files import atomic_file
from bbam_ray.results.schemas import SPLIT
from bbam_ray.results.store import read_table

SPLIT_FILE = "split.parquet"


@dataclass(frozen=True)
class NamedSplit:
    """The division of the training samples, without the samples themselves.

    Args:
        split: row indices of each part.
        names: N names (files); None if samples have none.
    """

    split: Split
    names: Sequence[str] | None

    @classmethod
    def of(cls, task: Task) -> NamedSplit:
        return cls(task.split, task.samples.names)

    def table(self) -> pa.Table:
        """One row per training sample, in their order: its index, its name, its part of the split."""
        rows_by_part = asdict(self.split)
        parts = np.empty(sum(map(len, rows_by_part.values())), dtype=object)
        for name, rows in rows_by_part.items():
            parts[rows] = name
        names = list(self.names) if self.names else [None] * len(parts)
        return pa.table([np.arange(len(parts)), names, parts], schema=SPLIT)


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
