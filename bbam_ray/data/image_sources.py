"""Where encoded images come from: files, or the rows of Parquet files."""

from __future__ import annotations

import hashlib
import io
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow.parquet as pq


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


def files_state(paths: Iterable[Path]) -> str:
    """Hexadecimal digest of paths, sizes and times: it changes when a file does."""
    digest = hashlib.sha256()
    for path in paths:
        status = path.stat()
        digest.update(f"{path.resolve()}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


class ImageFiles(ImageSource):
    """One file an image.

    Args:
        paths: of the images.
        root: the names are relative to it.
    """

    def __init__(self, paths: Sequence[Path], root: Path) -> None:
        self.paths = paths
        self.names = [path.relative_to(root).as_posix() for path in paths]

    def state(self) -> str:
        return files_state(self.paths)

    def __iter__(self) -> Iterator[Path]:
        return iter(self.paths)


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
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=64, columns=[self._column]):
                    values: Any = batch.column(0)
                    while place < len(wanted) and wanted[place] < row + len(values):
                        value = values[int(wanted[place]) - row].as_py()
                        content = value.get("bytes") if isinstance(value, dict) else value
                        yield io.BytesIO(content or b"")
                        place += 1
                    row += len(values)
