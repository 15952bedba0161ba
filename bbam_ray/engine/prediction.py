"""Predictions as tables, and the file that they are written to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from bbam_ray.data.prediction.chunks import Chunk
from bbam_ray.engine.model import Model
from bbam_ray.errors import UsageError
from bbam_ray.files import atomic_file, remove_unfinished
from bbam_ray.results.remote import check_local

_GROUP = 8192  # rows per row group
NOTE = (
    "note"  # the last column, for images that are decoded: what was done to one that is not plain
)
SEPARATOR = "|"  # between labels in CSV


def prediction_schema(label_names: Sequence[str], *, notes: bool = False) -> pa.Schema:
    """Columns: name of the sample, error, predicted labels, a score for each label, and maybe a note."""
    scores = [(f"score_{name}", pa.float64()) for name in label_names]
    first = [("name", pa.string()), ("error", pa.string()), ("labels", pa.list_(pa.string()))]
    return pa.schema([*first, *scores, *([(NOTE, pa.string())] if notes else [])])


def predictions(model: Model, chunk: Chunk, *, logits: bool = False) -> Iterator[pa.Table]:
    """Score the samples of a chunk, a batch at a time.

    Args:
        model: the trained model.
        chunk: the samples; one that cannot be read gets an error and no scores.
        logits: scores are logits z instead of probabilities.

    Yields:
        Tables of ``prediction_schema``.
    """
    schema = prediction_schema(model.label_names, notes=chunk.encoded_images)
    names = np.array(model.label_names, dtype=object)
    for batch in chunk.batches(model.description.config.training.evaluation_batch):
        outputs = model.logits(batch.inputs)
        decided = outputs > model.thresholds
        bad = np.array([problem is not None for problem in batch.problems])
        labels = [
            None if wrong else names[row].tolist() for row, wrong in zip(decided, bad, strict=True)
        ]
        scores = outputs.astype(np.float64) if logits else model.probabilities(outputs)
        columns = [pa.array(scores[:, k], mask=bad) for k in range(len(names))]
        first = [
            pa.array(values, kind)
            for values, kind in zip(
                (batch.names, batch.problems, labels), schema.types[:3], strict=True
            )
        ]
        if chunk.encoded_images:
            columns.append(pa.array(batch.notes, pa.string()))
        yield pa.Table.from_arrays([*first, *columns], schema=schema)


class PredictionFile:
    """A Parquet or CSV file that is written table by table; equal rows give equal bytes.

    Rows are collected into groups of a fixed size, so the sizes of the tables do not matter.

    Args:
        path: ends in .parquet or .csv.
        schema: ``prediction_schema``.
    """

    def __init__(self, path: Path, schema: pa.Schema, *, as_csv: bool) -> None:
        self.rows = self.unreadable = self.noted = 0
        self._waiting: list[pa.Table] = []
        self._schema, self._as_csv = schema, as_csv
        if self._as_csv:
            flat = schema.set(2, pa.field("labels", pa.string()))
            self._writer: Any = csv.CSVWriter(path, flat)
        else:
            self._writer = pq.ParquetWriter(path, schema, compression="zstd")

    def write(self, table: pa.Table) -> None:
        self._waiting.append(table)
        self.rows += len(table)
        self.unreadable += len(table) - table.column("error").null_count
        if NOTE in self._schema.names:
            self.noted += len(table) - table.column(NOTE).null_count
        if sum(map(len, self._waiting)) >= _GROUP:
            whole = pa.concat_tables(self._waiting)
            while len(whole) >= _GROUP:
                self._put(whole.slice(0, _GROUP))
                whole = whole.slice(_GROUP)
            self._waiting = [whole]

    def _put(self, table: pa.Table) -> None:
        table = table.combine_chunks()
        if self._as_csv:
            lists = table.column("labels").to_pylist()
            joined = [None if names is None else SEPARATOR.join(names) for names in lists]
            table = table.set_column(2, "labels", pa.array(joined, pa.string()))
        self._writer.write_table(table)

    def close(self) -> None:
        if sum(map(len, self._waiting)):
            self._put(pa.concat_tables(self._waiting))
        self._writer.close()


def check_output(path: Path, label_names: Sequence[str]) -> None:
    """Raise a UsageError if predictions cannot be written to a new file with this name."""
    check_local("--output", path)
    if path.suffix not in (".parquet", ".csv"):
        raise UsageError(f"--output {path}: expected a name that ends with .parquet or .csv")
    if path.exists():
        raise UsageError(f"--output {path}: exists already; give another name or remove it")
    if path.suffix == ".csv" and (bad := next((n for n in label_names if SEPARATOR in n), None)):
        raise UsageError(
            f"--output {path}: label '{bad}' contains '{SEPARATOR}', which separates labels in CSV; use "
            ".parquet"
        )


@contextmanager
def prediction_file(path: Path, schema: pa.Schema) -> Iterator[PredictionFile]:
    """A file that appears under its name when all of it has been written, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_unfinished(path)
    with atomic_file(path) as temporary:
        file = PredictionFile(temporary, schema, as_csv=path.suffix == ".csv")
        yield file
        file.close()
