"""An array on disk whose rows all processes of a node share, written once and checked when opened.

The file holds the rows one after the other, then a description in JSON (shape, type, checksums, metadata),
the description's checksum and length, and a mark. Rows are read by position, not memory-mapped: the
operating system caches them once for all processes, and no process grows by the rows that it reads.
"""

from __future__ import annotations

import hashlib
import json
import math
import operator
import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

_MARK = b"BBAMROW3"
_TAIL = 4 + 8 + len(_MARK)  # the description's checksum and length, and the mark
_BLOCK_BYTES = 1 << 22  # one checksum for about this many bytes


class DamagedRowsError(Exception):
    """The file is not as it was written; the message says where."""


class StoredRows:
    """The rows of a file that ``write_rows`` made; indexed like an array by its first axis.

    Args:
        path: of the file.

    Raises:
        DamagedRowsError: not a file of rows, truncated, or its first or last rows have changed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("rb", buffering=0)
        size = os.fstat(self._file.fileno()).st_size
        tail = self._read(max(0, size - _TAIL), min(size, _TAIL))
        checksum, length = (int.from_bytes(part, "little") for part in (tail[:4], tail[4:12]))
        if tail[12:] != _MARK or length + _TAIL > size:
            raise DamagedRowsError(f"{path}: truncated, or not a file of stored rows")
        content = self._read(size - _TAIL - length, length)
        if zlib.crc32(content) != checksum:
            raise DamagedRowsError(f"{path}: its description is damaged")
        try:
            described = json.loads(content)
            self.shape: tuple[int, ...] = tuple(map(operator.index, described["shape"]))
            self.dtype = np.dtype(described["dtype"])
            self.metadata: dict[str, Any] = described["metadata"]
            self._checksums: list[int] = described["checksums"]
            self._row_bytes: int = math.prod(self.shape[1:]) * self.dtype.itemsize
            blocks = -(-len(self) // _rows_of_block(self._row_bytes))
            valid = min(self.shape) >= 0 and len(self._checksums) == blocks
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise DamagedRowsError(f"{path}: its description is invalid ({error})") from None
        if not valid:
            raise DamagedRowsError(f"{path}: its description is invalid")
        if self._row_bytes * len(self) + length + _TAIL != size:
            raise DamagedRowsError(f"{path}: {size} bytes do not fit the shape {self.shape}")
        for block in {0, len(self._checksums) - 1} if self._checksums else ():
            self._check(block)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return self._row_bytes * len(self)

    @property
    def digest(self) -> str:
        """Hexadecimal digest of all rows, from their checksums; it does not depend on path and time."""
        content = json.dumps([list(self.shape), self.dtype.str, self._checksums])
        return hashlib.sha256(content.encode()).hexdigest()

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Rows by index, slice or array of indices, as a new array."""
        if isinstance(rows, (int, np.integer)):
            row: np.ndarray = self[np.array([rows])][0]
            return row
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(len(self)))
        rows = np.asarray(rows)
        if rows.dtype == bool:
            rows = np.flatnonzero(rows)
        rows = np.where(rows < 0, rows + len(self), rows).astype(np.int64)
        if len(rows) and (rows.min() < 0 or rows.max() >= len(self)):
            raise IndexError(f"rows {rows.min()} to {rows.max()} of {len(self)}")
        values = np.empty((len(rows), *self.shape[1:]), self.dtype)
        if not values.size:
            return values
        flat = values.data.cast("B")
        # Consecutive rows are read with one call.
        starts = np.flatnonzero(np.diff(rows, prepend=rows[0] - 2) != 1)
        for start, end in zip(starts, [*starts[1:], len(rows)], strict=True):
            part = flat[start * self._row_bytes : end * self._row_bytes]
            self._read_into(int(rows[start]) * self._row_bytes, part)
        return values

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        whole: np.ndarray = self[:]
        return whole if dtype is None else whole.astype(dtype)

    def verify(self) -> None:
        """Read all rows and compare their checksums; raises DamagedRowsError."""
        for block in range(len(self._checksums)):
            self._check(block)

    def _check(self, block: int) -> None:
        rows = _rows_of_block(self._row_bytes)
        first, last = block * rows, min((block + 1) * rows, len(self))
        content = self._read(first * self._row_bytes, (last - first) * self._row_bytes)
        if zlib.crc32(content) != self._checksums[block]:
            raise DamagedRowsError(f"{self.path}: rows {first} to {last - 1} have changed")

    def _read(self, start: int, length: int) -> bytes:
        content = bytearray(length)
        self._read_into(start, memoryview(content))
        return bytes(content)

    def _read_into(self, start: int, target: memoryview) -> None:
        done = 0
        while done < len(target):
            count = os.preadv(self._file.fileno(), [target[done:]], start + done)
            if not count:
                raise DamagedRowsError(f"{self.path}: was truncated")
            done += count

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()


def _rows_of_block(row_bytes: int) -> int:
    return max(1, _BLOCK_BYTES // max(1, row_bytes))


def write_rows(
    path: Path,
    rows: Iterable[np.ndarray],
    row_shape: tuple[int, ...],
    dtype: Any,
    metadata: dict[str, Any],
) -> None:
    """Write rows to a new file, in the order of iteration.

    Args:
        path: of the new file.
        rows: each of ``row_shape``.
        row_shape, dtype: of one row.
        metadata: JSON values stored with the rows; ``rows`` may fill it while it is iterated.
    """
    kind = np.dtype(dtype)
    row_bytes = int(np.prod(row_shape, dtype=np.int64)) * kind.itemsize
    per_block = _rows_of_block(row_bytes)
    checksums: list[int] = []
    count = checksum = 0
    with path.open("wb") as file:
        for row in rows:
            content = np.ascontiguousarray(row, kind)
            if content.shape != row_shape:
                raise ValueError(f"row {count} has the shape {content.shape}, not {row_shape}")
            file.write(content.data)
            checksum = zlib.crc32(content.data, checksum)
            count += 1
            if count % per_block == 0:
                checksums.append(checksum)
                checksum = 0
        if count % per_block:
            checksums.append(checksum)
        described = json.dumps(
            {
                "shape": [count, *row_shape],
                "dtype": kind.str,
                "checksums": checksums,
                "metadata": metadata,
            }
        ).encode()
        tail = zlib.crc32(described).to_bytes(4, "little") + len(described).to_bytes(8, "little")
        file.write(described + tail + _MARK)


def text_of_bits(bits: np.ndarray) -> str:
    """Zeros and ones as hexadecimal text, for metadata."""
    return np.packbits(bits).tobytes().hex()


def bits_of(text: str, shape: tuple[int, ...]) -> np.ndarray:
    """The inverse of ``text_of_bits``: zeros and ones (uint8) of a shape."""
    packed = np.frombuffer(bytes.fromhex(text), dtype=np.uint8)
    return np.unpackbits(packed, count=int(np.prod(shape))).reshape(shape)
