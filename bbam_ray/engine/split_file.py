"""``split.parquet``: how a study uses each training sample, stored with its results."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bbam_ray.engine.task import Task
from bbam_ray.errors import UsageError
from bbam_ray.results.files import write_whole
from bbam_ray.results.schemas import SPLIT
from bbam_ray.results.store import read_table

SPLIT_FILE = "split.parquet"


def split_table(task: Task) -> pa.Table:
    """One row per training sample, in their order: its index, its name, its part of the split."""
    samples = task.samples
    parts = np.empty(len(samples.labels), dtype=object)
    for name, rows in asdict(task.split).items():
        parts[rows] = name
    names = list(samples.names) if samples.names else [None] * len(parts)
    return pa.table([np.arange(len(parts)), names, parts], schema=SPLIT)


def keep_split(folder: Path, table: pa.Table) -> None:
    """Write the split of a new study, or check that of a resumed one.

    Args:
        folder: of the study.
        table: of ``split_table``.

    Raises:
        UsageError: the samples are not divided as they were when the study began.
    """
    path = folder / SPLIT_FILE
    if not path.exists():
        write_whole(path, lambda temporary: pq.write_table(table, temporary, compression="zstd"))
        return
    before = read_table(path)
    if not before.equals(table):
        raise UsageError(
            f"{path}: {len(table)} training samples are not divided as the {len(before)} were when study "
            f"'{folder.name}' began: the data have changed; restore them, or use another --name"
        )
