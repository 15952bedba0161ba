"""Chunks of the input of a prediction, each of which any process can read independently.

No file needs to fit into memory. An unreadable sample is reported and does not stop the others.
"""

from __future__ import annotations

import io
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from bbam_ray.data.formats.feature_files import as_float32
from bbam_ray.data.formats.file_list import name_of_file
from bbam_ray.data.formats.image_decoding import (
    UnreadableImageError,
    conversion,
    darkness,
    read_image,
    without_warnings,
)
from bbam_ray.data.formats.image_range import AUTO
from bbam_ray.data.formats.image_sources import encoded
from bbam_ray.data.formats.npz import array_header, open_arrays, read_array
from bbam_ray.data.formats.tables import readable_parquet
from bbam_ray.errors import UsageError


@dataclass(frozen=True)
class Batch:
    """Samples that are scored together.

    Args:
        names: B names, from the input; not necessarily unique.
        inputs: (B, C, H, W) uint8 or (B, F) float32, zero in rows with a problem; or B texts.
        problems: B messages; None for samples without a problem.
        notes: B texts about how an image was read (see ``conversion``), or None; empty for other inputs.
    """

    names: list[str]
    inputs: np.ndarray | list[str]
    problems: list[str | None]
    notes: Sequence[str | None] = ()


@dataclass(frozen=True)
class Chunk(ABC):
    """Consecutive samples of a source.

    Args:
        source: file or folder.
        shape: of one sample, as the model expects it.
        count: number of samples.
        image_range: see the setting of this name; that of the model's training.
    """

    source: Path
    shape: tuple[int, ...]
    count: int
    image_range: str = field(default=AUTO, kw_only=True)

    @property
    def encoded_images(self) -> bool:
        """Whether samples are decoded when they are read, so that batches have ``notes``."""
        return False

    @abstractmethod
    def batches(self, size: int) -> Iterator[Batch]:
        """The samples in order, ``size`` at a time; the last batch may be smaller."""

    def _batch(self, names: list[str], values: Sequence[Any]) -> Batch:
        """A batch of encoded images or lists of features."""
        inputs = np.zeros(
            (len(names), *self.shape), np.uint8 if len(self.shape) > 1 else np.float32
        )
        problems: list[str | None] = [None] * len(names)
        notes: list[str | None] = [None] * len(names)
        for row, value in enumerate(values):
            if len(self.shape) > 1:
                channels, side, _ = self.shape
                try:
                    with without_warnings():
                        note = conversion(value, self.image_range)
                        inputs[row] = read_image(value, side, channels, self.image_range)
                    notes[row] = note + darkness(note, inputs[row]) or None
                except UnreadableImageError as error:
                    problems[row] = str(error)
            elif value is None or len(value) != self.shape[0]:
                features = "missing" if value is None else f"{len(value)} features"
                problems[row] = f"{features}; the model expects {self.shape[0]} features"
            else:
                numbers = [np.nan if number is None else number for number in value]
                inputs[row] = as_float32(np.array(numbers, dtype=np.float64))
        return Batch(names, inputs, _finite(inputs, problems), notes)


def _finite(inputs: np.ndarray, problems: list[str | None]) -> list[str | None]:
    """Add problems for rows with features that are not finite, and set these rows to zero."""
    if inputs.dtype == np.uint8:
        return problems
    for row in np.flatnonzero(~np.isfinite(inputs).all(axis=1)):
        column = int(np.flatnonzero(~np.isfinite(inputs[row]))[0])
        problems[row] = f"feature {column + 1} is {inputs[row, column]}"
        inputs[row] = 0
    return problems


def check_count(chunk: Chunk, rows: int) -> None:
    """Raise a UsageError unless a chunk had as many rows as its file declares."""
    if rows != chunk.count:
        raise UsageError(
            f"--input {chunk.source}: {rows} rows, but it declares {chunk.count}; copy it again"
        )


@dataclass(frozen=True)
class FilesChunk(Chunk):
    """Images in files below a folder."""

    names: tuple[str, ...] = ()
    encoded_images = True

    def batches(self, size: int) -> Iterator[Batch]:
        for start in range(0, len(self.names), size):
            names = list(self.names[start : start + size])
            files = [self.source / name for name in names]
            yield self._batch(list(map(name_of_file, names)), files)


@dataclass(frozen=True)
class ParquetChunk(Chunk):
    """A row group: encoded images or lists of features."""

    group: int = 0
    first_row: int = 0
    column: str = ""
    name_column: str | None = None

    @property
    def encoded_images(self) -> bool:
        return len(self.shape) > 1

    def batches(self, size: int) -> Iterator[Batch]:
        columns = [self.column, *([self.name_column] if self.name_column else [])]
        row = self.first_row
        with (
            readable_parquet(self.source),
            pq.ParquetFile(self.source, pre_buffer=False, buffer_size=1 << 20) as file,
        ):
            for block in file.iter_batches(size, row_groups=[self.group], columns=columns):
                names = [f"row {row + offset + 1}" for offset in range(len(block))]
                if self.name_column:
                    values = block.column(self.name_column).to_pylist()
                    names = [
                        str(v) if v is not None else n for v, n in zip(values, names, strict=True)
                    ]
                values = block.column(self.column).to_pylist()
                yield self._batch(
                    names, values if len(self.shape) == 1 else list(map(encoded, values))
                )
                row += len(block)
        check_count(self, row - self.first_row)


@dataclass(frozen=True)
class NpzChunk(Chunk):
    """Rows of one array of an ``.npz`` file, read as a stream, or as a whole in Fortran order."""

    array: str = ""
    start: int = 0

    def batches(self, size: int) -> Iterator[Batch]:
        try:
            yield from self._batches(size)
        except ValueError as error:
            raise UsageError(f"--input {self.source}: cannot be read ({error})") from None

    def _batches(self, size: int) -> Iterator[Batch]:
        with open_arrays(self.source) as archive, archive.open(f"{self.array}.npy") as stream:
            shape, by_column, dtype = array_header(stream)
            row_bytes = math.prod(shape[1:]) * dtype.itemsize
            whole = read_array(archive, self.array) if by_column else None
            stream.seek(self.start * row_bytes, io.SEEK_CUR)
            for start in range(0, self.count, size):
                rows = min(size, self.count - start)
                if whole is not None:
                    block = whole[self.start + start : self.start + start + rows]
                else:
                    block = np.frombuffer(stream.read(rows * row_bytes), dtype).reshape(
                        rows, *shape[1:]
                    )
                images = len(self.shape) > 1
                inputs = block.copy() if images else as_float32(block)
                first = self.start + start + 1
                names = [f"row {first + offset}" for offset in range(rows)]
                yield Batch(names, inputs, _finite(inputs, [None] * rows))
