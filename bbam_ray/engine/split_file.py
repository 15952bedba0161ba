"""``split.parquet``: which training sample a study uses how, kept with its results."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bbam_ray.config import RunConfig
from bbam_ray.engine.task import load_part, split_of
from bbam_ray.errors import UsageError
from bbam_ray.files import atomic_file
from bbam_ray.results.schemas import SPLIT
from bbam_ray.results.store import read_table

SPLIT_FILE = "split.parquet"


def split_table(config: RunConfig) -> pa.Table:
    """One row per training sample, in their order: its number, its name, its part of the split."""
    samples = load_part(config, "train")
    parts = np.empty(len(samples.labels), dtype=object)
    for name, rows in asdict(split_of(samples, config)).items():
        parts[rows] = name
    names = list(samples.names) if samples.names else [None] * len(parts)
    return pa.table([np.arange(len(parts)), names, parts], schema=SPLIT)


def keep_split(folder: Path, config: RunConfig) -> None:
    """Write the split of a run or search into its folder; one that goes on must have the same still.

    Raises:
        UsageError: the samples are divided otherwise than when the study began.
    """
    table, path = split_table(config), folder / SPLIT_FILE
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
