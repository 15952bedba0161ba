"""Where encoded images come from: files, or the rows of Parquet files."""

from __future__ import annotations

import hashlib
import io
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bbam_ray.data.formats.tables import readable_parquet
from bbam_ray.errors import UsageError, shown


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


def name_of_file(name: str) -> str:
    """A name as text that can be stored: bytes that are none are written as escapes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def files_state(paths: Iterable[Path]) -> str:
    """Hexadecimal digest of paths, sizes and times: it changes when a file does."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            status, place = path.stat(), path.resolve()
        except (OSError, RuntimeError, ValueError) as error:  # a link to nowhere, or to itself
            reason = error.strerror if isinstance(error, OSError) else error
            raise UsageError(
                f"{shown(str(path), 300)}: cannot be read ({reason}); restore or remove it"
            ) from None
        digest.update(os.fsencode(f"{place}\0{status.st_size}\0{status.st_mtime_ns}\n"))
    return digest.hexdigest()


def _is_below(place: str, bases: Iterable[str]) -> bool:
    return any(os.path.commonpath((place, base)) == base for base in bases)


class ImageFiles(ImageSource):
    """One file an image.

    Args:
        paths: of the images.
        root: the names are relative to it.
    """

    def __init__(self, paths: Sequence[Path], root: Path) -> None:
        self.paths, self.root = paths, root
        self.names = [name_of_file(path.relative_to(root).as_posix()) for path in paths]

    def state(self) -> str:
        return files_state(self.paths)

    def outside(self) -> Path | None:
        """The first image that is really elsewhere than below the root, by its name or by a link.

        Folders right below the root may be links: those are the layout, which its user has made.
        """
        known: dict[Path, tuple[str, ...]] = {}
        for path in self.paths:
            parent = path.parent
            if parent not in known:
                top = parent.relative_to(self.root).parts[:1]
                bases = {self.root, *(self.root / name for name in top if name != "..")}
                known[parent] = tuple(os.path.realpath(base) for base in bases)
                if not _is_below(os.path.realpath(parent), known[parent]):
                    return path
            if path.is_symlink() and not _is_below(os.path.realpath(path), known[parent]):
                return path
        return None

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
