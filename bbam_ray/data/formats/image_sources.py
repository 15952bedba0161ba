"""Encoded images from files or from rows of Parquet files."""

from __future__ import annotations

import hashlib
import io
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bbam_ray.data.formats.file_list import FileScan, files_state, name_of_file, scan_files
from bbam_ray.data.formats.tables import readable_parquet


class ImageSource(ABC):
    """Encoded images in a fixed order."""

    #: a name for each image, for messages and results
    names: Sequence[str]

    @abstractmethod
    def state(self) -> str:
        """A text that changes when an image changes."""

    @abstractmethod
    def __iter__(self) -> Iterator[Path | BinaryIO]:
        """Paths or open buffers, in order."""

    def __len__(self) -> int:
        return len(self.names)


class ImageFiles(ImageSource):
    """Images in files of their own.

    Args:
        paths: of the images.
        root: the data folder, which all paths start with; names are relative to it.
    """

    def __init__(self, paths: Sequence[Path], root: Path) -> None:
        self.paths, self.root = paths, root
        self.names = [name_of_file(path.relative_to(root).as_posix()) for path in paths]

    @cached_property
    def scan(self) -> FileScan:
        """Existence, place and state of the files, as of the first access."""
        return scan_files(self.paths, self.root)

    def state(self) -> str:
        return self.scan.state()

    def __iter__(self) -> Iterator[Path]:
        return iter(self.paths)


def holds_images(kind: pa.DataType) -> bool:
    """Whether a column of this type can hold images: bytes, or Hugging Face's pair of bytes and path."""
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and holds_images(kind.field("bytes").type)
    plain = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    return bool(plain or pa.types.is_fixed_size_binary(kind) or pa.types.is_null(kind))


def encoded(value: Any) -> BinaryIO:
    """The bytes of an image in a column that ``holds_images``; empty for null."""
    content = value.get("bytes") if isinstance(value, dict) else value
    return io.BytesIO(content or b"")


class ParquetImages(ImageSource):
    """Images inside Parquet files.

    Args:
        files: read in order, a batch of rows at a time.
        column: of the images (see ``holds_images``).
        chosen: ascending row indices over all files; other rows are skipped.
        names: of the chosen rows.
    """

    def __init__(
        self, files: Sequence[Path], column: str, chosen: np.ndarray, names: Sequence[str]
    ) -> None:
        self._files, self._column, self._chosen, self.names = files, column, chosen, names

    def state(self) -> str:
        rows = hashlib.sha256(np.ascontiguousarray(self._chosen, np.int64).tobytes()).hexdigest()
        return f"{files_state(self._files)} {self._column} {rows}"

    def __iter__(self) -> Iterator[BinaryIO]:
        chosen, next_chosen, row = self._chosen, 0, 0
        for path in self._files:
            with readable_parquet(path), pq.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=64, columns=[self._column]):
                    values: Any = batch.column(0)
                    while next_chosen < len(chosen) and chosen[next_chosen] < row + len(values):
                        yield encoded(values[int(chosen[next_chosen]) - row].as_py())
                        next_chosen += 1
                    row += len(values)
