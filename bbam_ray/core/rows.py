"""Iterating over sample rows in blocks, so that temporaries stay small next to an N x K matrix."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor

_BLOCK_ENTRIES = 1 << 17  # so that a block of float64 stays in a core's cache


def row_blocks(num_rows: int, row_width: int) -> Iterator[slice]:
    """Slices that cover ``num_rows`` rows, each with about 130,000 entries.

    Args:
        num_rows: N.
        row_width: entries of a row; a block has at least one row.
    """
    step = max(1, _BLOCK_ENTRIES // max(1, row_width))
    for start in range(0, num_rows, step):
        yield slice(start, min(start + step, num_rows))


def replace_in_blocks(change: Callable[[Tensor], Tensor], matrix: Tensor) -> Tensor:
    """``matrix[...] = change(matrix)`` with small temporaries; returns the matrix.

    Args:
        change: maps (rows, width) to the same shape and treats each row independently.
        matrix: (N, width), overwritten.
    """
    for rows in row_blocks(*matrix.shape):
        matrix[rows] = change(matrix[rows])
    return matrix
