"""Where encoded images come from: files, or the rows of Parquet files."""

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

    #: one for each image, for messages and records
    names: Sequence[str]

    @abstractmethod
    def state(self) -> str:
        """A text that changes when an image does."""

    @abstractmethod
    def __iter__(self) -> Iterator[Path | BinaryIO]:
        """Files or open buffers in order."""

    def __len__(self) -> int:
        return len(self.names)


class ImageFiles(ImageSource):
    """One file an image.

    Args:
        paths: of the images.
        root: the names are relative to it.
    """

    def __init__(self, paths: Sequence[Path], root: Path) -> None:
        self.paths, self.root = paths, root
        self.names = [name_of_file(path.relative_to(root).as_posix()) for path in paths]

    @cached_property
    def scan(self) -> FileScan:
        """What these files look like; each is looked at once."""
        return scan_files(self.paths, self.root)

    def state(self) -> str:
        return self.scan.state()

    def __iter__(self) -> Iterator[Path]:
        return iter(self.paths)


def holds_images(kind: pa.DataType) -> bool:
    """Whether a column of this type can: bytes, or the pair of bytes and path of Hugging Face."""
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and holds_images(kind.field("bytes").type)
    bare = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    return bool(bare or pa.types.is_fixed_size_binary(kind) or pa.types.is_null(kind))


def encoded(value: Any) -> BinaryIO:
    """The bytes of an image in such a column; empty where there are none."""
    content = value.get("bytes") if isinstance(value, dict) else value
    return io.BytesIO(content or b"")


class ParquetImages(ImageSource):
    """Images inside Parquet files: bytes, or the pair of bytes and path that Hugging Face writes.

    Args:
        files: read one after the other, a batch of rows at a time.
        column: of the images.
        chosen: ascending row numbers over all files; other rows are passed over.
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
        wanted, place, row = self._chosen, 0, 0
        for path in self._files:
            with readable_parquet(path), pq.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=64, columns=[self._column]):
                    values: Any = batch.column(0)
                    while place < len(wanted) and wanted[place] < row + len(values):
                        yield encoded(values[int(wanted[place]) - row].as_py())
                        place += 1
                    row += len(values)
