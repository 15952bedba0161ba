"""Texts as inputs of a prediction: a table with a column ``text``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bbam_ray.data.datasets.text import NAME_COLUMNS, SUFFIXES, TEXT
from bbam_ray.data.formats.tables import read_user_table, readable_parquet
from bbam_ray.data.prediction.chunks import Batch, Chunk, check_count
from bbam_ray.errors import UsageError, brief


def _batch(texts: list[object], names: list[str]) -> Batch:
    """A batch of texts; a missing or blank one has a problem and becomes an empty text."""
    valid = [isinstance(text, str) and bool(text.strip()) for text in texts]
    inputs = [str(text) if ok else "" for text, ok in zip(texts, valid, strict=True)]
    return Batch(names, inputs, [None if ok else "no text" for ok in valid])


@dataclass(frozen=True)
class TableChunk(Chunk):
    """All rows of a CSV, TSV or JSON lines file, which is read as a whole."""

    def batches(self, size: int) -> Iterator[Batch]:
        table = read_user_table(self.source)
        column = next((name for name in NAME_COLUMNS if name in table.columns), None)
        row_names = table.values(column) if column else [None] * len(table)
        texts = table.values(TEXT)
        for start in range(0, len(table), size):
            rows = range(start, min(start + size, len(table)))
            names = [_name(row_names[row], row) for row in rows]
            yield _batch([texts[row] for row in rows], names)


@dataclass(frozen=True)
class TextChunk(Chunk):
    """A row group of a Parquet file."""

    group: int = 0
    first_row: int = 0
    name_column: str | None = None

    def batches(self, size: int) -> Iterator[Batch]:
        columns = [TEXT, *([self.name_column] if self.name_column else [])]
        row = self.first_row
        with (
            readable_parquet(self.source),
            pq.ParquetFile(self.source, pre_buffer=False, buffer_size=1 << 20) as file,
        ):
            for block in file.iter_batches(size, row_groups=[self.group], columns=columns):
                row_names = [None] * len(block)
                if self.name_column:
                    row_names = block.column(self.name_column).to_pylist()
                names = [_name(name, row + offset) for offset, name in enumerate(row_names)]
                yield _batch(block.column(TEXT).to_pylist(), names)
                row += len(block)
        check_count(self, row - self.first_row)


def _name(name: object, row: int) -> str:
    return f"row {row + 1}" if name is None else str(name)


def text_chunks(source: Path, shape: tuple[int, ...]) -> list[Chunk]:
    """Divide the texts of a file.

    Args:
        source: ``.csv``, ``.tsv``, ``.jsonl`` or ``.parquet`` with a column ``text``.
        shape: (L,), the maximum number of tokens.

    Raises:
        UsageError: no such file, another kind of file, or no column ``text``.
    """
    if not source.is_file() or source.suffix not in SUFFIXES:
        problem = f"expected {', '.join(SUFFIXES)}" if source.exists() else "no such file"
        raise UsageError(
            f"--input {source}: {problem}; the model expects texts in a column '{TEXT}'"
        )
    if source.suffix != ".parquet":
        table = read_user_table(source)
        _check_column(source, list(table.columns))
        return [TableChunk(source, shape, len(table))]
    try:
        with pq.ParquetFile(source) as file:
            columns = file.schema_arrow.names
            groups = [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)]
    except (OSError, pa.ArrowException) as error:
        raise UsageError(
            f"--input {source}: not a complete Parquet file ({brief(error, 200)}); copy it again"
        ) from None
    _check_column(source, columns)
    name = next((name for name in NAME_COLUMNS if columns.count(name) == 1), None)
    starts = [sum(groups[:group]) for group in range(len(groups))]
    return [
        TextChunk(source, shape, count, group, starts[group], name)
        for group, count in enumerate(groups)
        if count
    ]


def _check_column(source: Path, columns: list[str]) -> None:
    if columns.count(TEXT) > 1:
        raise UsageError(f"--input {source}: two columns '{TEXT}'; keep one of them")
    if TEXT not in columns:
        raise UsageError(
            f"--input {source}: no column '{TEXT}', which the model expects (columns: "
            f"{brief(', '.join(columns), 300)}); rename or add it"
        )
