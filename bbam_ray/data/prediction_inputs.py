"""Samples that a trained model is to score: a folder of images, a Parquet file or an ``.npz`` file.

They come in pieces that any process can read on its own, so that no file needs to fit into memory. What
cannot be read is told with its sample and never stops the others.
"""

from __future__ import annotations

import io
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bbam_ray.data.feature_files import as_float32
from bbam_ray.data.image_cache import UnreadableImageError, read_image, without_warnings
from bbam_ray.data.image_dataset import IMAGE_SUFFIXES
from bbam_ray.data.image_sources import encoded, holds_images, name_of_file
from bbam_ray.data.npz_files import (
    array_header,
    array_names,
    check_size,
    names_of,
    open_arrays,
    read_array,
)
from bbam_ray.data.tables import readable_parquet
from bbam_ray.errors import UsageError, shown

_FILES, _ROWS = 512, 8192  # samples of a piece
_NAME_COLUMNS = ("file_name", "filename", "name", "path")


@dataclass(frozen=True)
class Batch:
    """Samples that are scored together.

    Args:
        names: B names, unique where those who made the file took care.
        inputs: (B, C, H, W) uint8 or (B, F) float32, where rows with a problem hold zeros; or B texts.
        problems: B texts, None where all is well.
    """

    names: list[str]
    inputs: np.ndarray | list[str]
    problems: list[str | None]


@dataclass(frozen=True)
class Piece(ABC):
    """Consecutive samples of a source.

    Args:
        source: file or folder.
        shape: of one sample, as the model takes it.
        count: samples.
    """

    source: Path
    shape: tuple[int, ...]
    count: int

    @abstractmethod
    def batches(self, size: int) -> Iterator[Batch]:
        """The samples in order, ``size`` at a time but for the last batch."""

    def _batch(self, names: list[str], values: Sequence[Any]) -> Batch:
        """Samples that are still encoded, or lists of features."""
        inputs = np.zeros(
            (len(names), *self.shape), np.uint8 if len(self.shape) > 1 else np.float32
        )
        problems: list[str | None] = [None] * len(names)
        for row, value in enumerate(values):
            if len(self.shape) > 1:
                channels, side, _ = self.shape
                try:
                    with without_warnings():
                        inputs[row] = read_image(value, side, channels)
                except UnreadableImageError as error:
                    problems[row] = str(error)
            elif value is None or len(value) != self.shape[0]:
                found = "missing" if value is None else f"{len(value)} features"
                problems[row] = f"{found}; the model takes {self.shape[0]} features"
            else:
                numbers = [np.nan if number is None else number for number in value]
                inputs[row] = as_float32(np.array(numbers, dtype=np.float64))
        return Batch(names, inputs, _finite(inputs, problems))


def _finite(inputs: np.ndarray, problems: list[str | None]) -> list[str | None]:
    """Also names rows with features that are not numbers, and puts zeros there."""
    if inputs.dtype == np.uint8:
        return problems
    for row in np.flatnonzero(~np.isfinite(inputs).all(axis=1)):
        column = int(np.flatnonzero(~np.isfinite(inputs[row]))[0])
        problems[row] = f"feature {column + 1} is {inputs[row, column]}"
        inputs[row] = 0
    return problems


def check_count(piece: Piece, rows: int) -> None:
    """Raise a UsageError unless as many samples were read as a damaged file may only claim to hold."""
    if rows != piece.count:
        raise UsageError(
            f"--input {piece.source}: {rows} rows where it claims {piece.count}; copy it again"
        )


@dataclass(frozen=True)
class FilesPiece(Piece):
    """Images in files below a folder."""

    names: tuple[str, ...] = ()

    def batches(self, size: int) -> Iterator[Batch]:
        for start in range(0, len(self.names), size):
            names = list(self.names[start : start + size])
            files = [self.source / name for name in names]
            yield self._batch(list(map(name_of_file, names)), files)


@dataclass(frozen=True)
class ParquetPiece(Piece):
    """A row group: encoded images or lists of features."""

    group: int = 0
    first_row: int = 0
    column: str = ""
    name_column: str | None = None

    def batches(self, size: int) -> Iterator[Batch]:
        columns = [self.column, *([self.name_column] if self.name_column else [])]
        row = self.first_row
        with (
            readable_parquet(self.source),
            pq.ParquetFile(self.source, pre_buffer=False, buffer_size=1 << 20) as file,
        ):
            for block in file.iter_batches(size, row_groups=[self.group], columns=columns):
                names = [f"row {row + place + 1}" for place in range(len(block))]
                if self.name_column:
                    given = block.column(self.name_column).to_pylist()
                    names = [
                        str(n) if n is not None else d for n, d in zip(given, names, strict=True)
                    ]
                values = block.column(self.column).to_pylist()
                yield self._batch(
                    names, values if len(self.shape) == 1 else list(map(encoded, values))
                )
                row += len(block)
        check_count(self, row - self.first_row)


@dataclass(frozen=True)
class NpzPiece(Piece):
    """Rows of one array of an ``.npz`` file, which is read like a stream."""

    array: str = ""
    start: int = 0

    def batches(self, size: int) -> Iterator[Batch]:
        try:
            yield from self._batches(size)
        except ValueError as error:
            raise UsageError(f"--input {self.source}: cannot be read ({error})") from None

    def _batches(self, size: int) -> Iterator[Batch]:
        with open_arrays(self.source) as archive, archive.open(f"{self.array}.npy") as stream:
            shape, _, dtype = array_header(stream)
            row_bytes = math.prod(shape[1:]) * dtype.itemsize
            stream.seek(self.start * row_bytes, io.SEEK_CUR)
            for start in range(0, self.count, size):
                rows = min(size, self.count - start)
                block = np.frombuffer(stream.read(rows * row_bytes), dtype).reshape(
                    rows, *shape[1:]
                )
                images = len(self.shape) > 1
                inputs = block.copy() if images else as_float32(block)
                first = self.start + start + 1
                names = [f"row {first + place}" for place in range(rows)]
                yield Batch(names, inputs, _finite(inputs, [None] * rows))


def find_pieces(
    source: Path, shape: tuple[int, ...], labels: Sequence[str], texts: bool = False
) -> list[Piece]:
    """Divide the samples of a source for a model.

    Args:
        source: folder, ``.parquet`` or ``.npz`` file.
        shape: of one sample.
        labels: of the model; an ``.npz`` file that names its labels must name these.
        texts: whether the model takes texts.

    Raises:
        UsageError: nothing there, another kind of file, or samples of another shape.
    """
    if texts:
        from bbam_ray.data.prediction_texts import text_pieces

        return text_pieces(source, shape)
    images = len(shape) > 1
    if source.is_dir():
        if not images:
            raise UsageError(
                f"--input {source}: the model takes feature vectors; give a .parquet or .npz file"
            )
        found = (p for p in source.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
        names = sorted(path.relative_to(source).as_posix() for path in found)
        if not names:
            raise UsageError(f"--input {source}: no image in this folder")
        parts = [tuple(names[start : start + _FILES]) for start in range(0, len(names), _FILES)]
        return [FilesPiece(source, shape, len(part), part) for part in parts]
    if not source.is_file():
        raise UsageError(f"--input {source}: no such file or folder")
    if source.suffix == ".parquet":
        return _parquet_pieces(source, shape)
    if source.suffix == ".npz":
        return _npz_pieces(source, shape, labels)
    raise UsageError(f"--input {source}: expected a folder of images, a .parquet or an .npz file")


def _parquet_pieces(source: Path, shape: tuple[int, ...]) -> list[Piece]:
    try:
        with pq.ParquetFile(source) as file:
            schema = file.schema_arrow
            groups = [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)]
    except (OSError, pa.ArrowException) as error:
        raise UsageError(
            f"--input {source}: not a whole Parquet file ({shown(error, 200)})"
        ) from None
    column = "image" if len(shape) > 1 else "features"
    if column not in schema.names:
        raise UsageError(
            f"--input {source}: no column '{column}', which this model takes; has "
            f"{shown(', '.join(schema.names), 300)}"
        )
    if schema.names.count(column) > 1:
        raise UsageError(f"--input {source}: two columns '{column}'; keep one of them")
    kind = schema.field(column).type
    if pa.types.is_fixed_size_list(kind) and kind.list_size != shape[0]:
        raise UsageError(
            f"--input {source}: {kind.list_size} features a row; the model takes {shape[0]}"
        )
    inner = kind.value_type if _is_list(kind) else kind
    numbers = pa.types.is_floating(inner) or pa.types.is_integer(inner) or pa.types.is_null(inner)
    if not (holds_images(kind) if len(shape) > 1 else _is_list(kind) and numbers):
        wanted = "bytes of images" if len(shape) > 1 else "lists of numbers"
        raise UsageError(
            f"--input {source}: column '{column}' is {shown(str(kind))}; expected {wanted}"
        )
    name = next((name for name in _NAME_COLUMNS if schema.names.count(name) == 1), None)
    starts = np.cumsum([0, *groups])
    return [
        ParquetPiece(source, shape, count, group, int(starts[group]), column, name)
        for group, count in enumerate(groups)
        if count
    ]


def _is_list(kind: pa.DataType) -> bool:
    kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(is_kind(kind) for is_kind in kinds)


def _npz_pieces(source: Path, shape: tuple[int, ...], labels: Sequence[str]) -> list[Piece]:
    array = "images" if len(shape) > 1 else "features"
    try:
        with open_arrays(source) as archive:
            arrays = array_names(archive)
            if array not in arrays:
                raise UsageError(
                    f"--input {source}: no array '{array}', which this model takes; has "
                    f"{shown(', '.join(arrays), 300) or 'nothing'}"
                )
            found, by_column, dtype = check_size(archive, array)
            if by_column and len(found) > 1:
                raise ValueError("stored column by column; save np.ascontiguousarray of it")
            named = None
            if "label_names" in arrays:
                named = names_of(read_array(archive, "label_names"))
    except ValueError as error:
        raise UsageError(f"--input {source}: cannot be read ({error})") from None
    if named is not None and named != list(labels):
        other = next((n for n in named if n not in labels), "another order")
        raise UsageError(
            f"--input {source}: its label_names are not those of the model ({shown(other)}); use the "
            "model that was trained for them"
        )
    fits = dtype == np.uint8 if len(shape) > 1 else dtype.kind in "fiub"
    if tuple(found[1:]) != shape or not fits:
        sides = ", ".join(str(side) for side in shape)
        raise UsageError(
            f"--input {source}: {array} is {dtype} {tuple(found)}; the model takes "
            f"{'uint8' if len(shape) > 1 else 'numbers'} in (N, {sides})"
        )
    return [
        NpzPiece(source, shape, min(_ROWS, found[0] - start), array, start)
        for start in range(0, found[0], _ROWS)
    ]
